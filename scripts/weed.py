#!/usr/bin/env python3
"""SeaweedFS on a free loopback port, for scripts/bench and scripts/suites.

    scripts/weed.py DIR      starts it with its files in DIR (which it makes), makes the bucket "bench", prints the
                             port, and stops it at SIGTERM or SIGINT

The credentials are KEY and SECRET below, which may do everything, and those of MACHINE, which may read, write and list in
"bench" and "locked", and what a policy of the bucket lets them; S3VAULT_TEST_WEED names the binary, if not the one that
scripts/install-test-tools fetched.
"""

import concurrent.futures
import datetime
import hashlib
import hmac
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

KEY, SECRET = "bench", "secret-of-the-bench"
MACHINE = ("machine", "secret-of-the-machine")
MIB = 1 << 20


class Server:
    """SeaweedFS on loopback; stopped by its pid, and when this program dies."""

    def __init__(self, scratch):
        weed = os.environ.get("S3VAULT_TEST_WEED") or os.path.join(
            os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "s3vault-tools/weed-4.48")
        data = os.path.join(scratch, "weed")
        os.mkdir(data)
        config = os.path.join(scratch, "s3.json")
        with open(config, "w") as file:
            json.dump({"identities": [identity("bench", (KEY, SECRET), ["Admin", "Read", "Write", "List", "Tagging"]),
                                      identity("machine", MACHINE, [f"{verb}:{bucket}" for bucket in ("bench", "locked")
                                                                    for verb in ("Read", "Write", "List")])]}, file)
        with open(os.path.join(scratch, "weed.log"), "w") as self.log:
            # Another program may take the port between the check and the server's bind; then other ports are tried.
            if not any(self.starts(weed, scratch, data, config) for _ in range(3)):
                raise SystemExit("SeaweedFS does not start")
        self.request("PUT", "/bench/warm-up", b"x")

    def starts(self, weed, scratch, data, config):
        """Starts it; returns whether it answers within a minute."""
        self.port = port = free_ports()
        words = f"""server -dir={data} -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -master.port={port + 1}
            -master.port.grpc={port + 11} -master.volumeSizeLimitMB=1024 -master.electionTimeout=1s
            -master.heartbeatInterval=100ms -volume.port={port + 2} -volume.port.grpc={port + 12} -volume.max=0
            -volume.preStopSeconds=0 -filer -filer.port={port + 3} -filer.port.grpc={port + 13}
            -filer.localSocket={scratch}/filer.sock -s3 -s3.port={port} -s3.port.grpc={port + 10} -s3.port.iceberg=0
            -s3.port.lance=0 -s3.config={config}"""
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", weed, *words.split()], stdout=self.log, stderr=self.log)
        until = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < until:
            try:
                if self.request("PUT", "/bench") in (200, 409):
                    return True
            except OSError:
                pass
            time.sleep(0.2)
        self.stop()
        return False

    def request(self, method, path, body=b"", connection=None, port=None):
        """Sends a request over the given connection, or a new one; `port` may name another way to the server."""
        port = port or self.port
        headers = signed(f"127.0.0.1:{port}", method, path, {})
        connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        while answer.read(MIB):
            pass
        return answer.status

    def yardstick(self, total, port=None, between=lambda: None):
        """Seconds for bare parallel PUTs and then, after `between`, GETs of 16 MiB objects, over eight connections at a
        time."""
        body = os.urandom(16 * MIB)
        names = [f"/bench/yardstick-{n}-{time.time_ns()}" for n in range(max(1, total // len(body)))]

        def all_of(method, body=b""):
            own = threading.local()

            def one(name):
                if not hasattr(own, "connection"):
                    own.connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=60)
                return self.request(method, name, body, own.connection, port)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                begun = time.monotonic()
                for status in pool.map(one, names):
                    assert status == 200, status
                return time.monotonic() - begun
        put = all_of("PUT", body)
        between()
        # The objects stay: a server that cleans up disturbs the next measurement.
        return put, all_of("GET")

    def stop(self):
        self.process.kill()
        self.process.wait()


def identity(name, credentials, actions):
    return {"name": name, "actions": actions,
            "credentials": [{"accessKey": credentials[0], "secretKey": credentials[1]}]}


def signed(host, method, target, headers, credentials=None):
    """The headers of a request with a valid signature."""
    access, secret = credentials or (KEY, SECRET)
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {name.lower(): value for name, value in headers.items()}
    headers |= {"host": host, "x-amz-date": stamp, "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    names = sorted(name for name in headers if name == "host" or name.startswith("x-amz-"))
    path, _, query = target.partition("?")
    query = "&".join(sorted(part if "=" in part else part + "=" for part in query.split("&") if part))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in names)
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{';'.join(names)}\nUNSIGNED-PAYLOAD"
    scope = f"{day}/us-east-1/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("AWS4" + secret).encode()
    for part in (day, "us-east-1", "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={';'.join(names)}, "
                                f"Signature={signature}")
    return headers


def free_ports():
    while True:
        # Below the range of ephemeral ports.
        port = random.randrange(10_000, 30_000)
        try:
            for offset in (0, 1, 2, 3, 10, 11, 12, 13):
                with socket.socket() as one:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    one.bind(("127.0.0.1", port + offset))
            return port
        except OSError:
            pass


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.makedirs(sys.argv[1])
    server = Server(sys.argv[1])
    try:
        print(server.port, flush=True)
        while server.process.poll() is None:
            time.sleep(0.2)
        sys.exit("SeaweedFS ended by itself")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
