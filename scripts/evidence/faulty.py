"""A proxy between a mount and its store that does what networks and stores do on bad days.

    with Faulty(port, seed) as store:            before SeaweedFS at that port
        store.endpoint                           for the mount
        with store.fault("busy"): ...            one of FAULTS, until the `with` ends; its requests are counted

It understands each request, and signs it anew for the server: so it can answer as a store whose clock is an hour ahead, or
that knows another key, would."""

import contextlib
import datetime
import email.utils
import http.client
import http.server
import random
import re
import socket
import socketserver
import threading
import time
import urllib.parse

from weed import KEY, signed

SKEW_ALLOWED = 15 * 60
HOUR = 3600
# How late a delayed listing is, in seconds.
LISTING_LATE = 3
FAULTS = {
    "latency": "answers come 0.3 to 1 s late",
    "lost replies": "half of the requests are carried out, and the connection is cut",
    "late replies": "half of the answers come after the deadline",
    "busy": "most requests are answered by 503 SlowDown or 500",
    "cut bodies": "half of what is fetched breaks off",
    "corrupted bodies": "half of what is fetched has other bytes in it",
    "half kept": "half of the puts keep half of the object, and are answered by 200",
    "refused": "connections are refused",
    "black hole": "connections are accepted, and nothing is ever answered",
    "10 KB/s": "both ways",
    "no Date": "answers have none",
    "clock": "the store's clock is an hour ahead, and refuses ours",
    "late listings": "a listing lacks what is new, and replies are lost",
    "no bucket": "it is gone, for a while",
    "credentials": "they are refused: others are needed",
}
# Not a fault, but a store for a disk without room for what is written: it keeps only the length of packs.
FORGETS = "forgets packs"


class Cut(Exception):
    """Raised to end the connection."""


class Faulty:
    def __init__(self, port, seed):
        self.port, self.random = port, random.Random(f"{seed}/faulty")
        self.kind, self.hits, self.lateness = None, 0, 1.0
        self.knows = KEY
        self.puts, self.forgotten = {}, {}
        self._lock, self._connections = threading.Lock(), set()
        self._server = None
        self._listen(0)
        self.address = self._server.server_address
        self.endpoint = f"http://127.0.0.1:{self.address[1]}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._refuse()

    @contextlib.contextmanager
    def fault(self, kind, lateness=1.0):
        """`kind`: one of FAULTS, or FORGETS. `lateness`: how late a late reply is, in seconds."""
        self.hits, self.lateness = 0, lateness
        self.kind = kind
        if kind == "refused":
            self._refuse()
        try:
            yield
        finally:
            self.kind = None
            if kind == "refused":
                self._listen(self.address[1])
            if kind == "black hole":
                self.cut()

    def hit(self, chance=1.0):
        with self._lock:
            hit = self.random.random() < chance
            self.hits += hit
        return hit

    def cut(self):
        with self._lock:
            connections, self._connections = self._connections, set()
        for each in connections:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _listen(self, port):
        proxy = self

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads, request_queue_size = True, True, 128

            def handle_error(self, *_):
                pass

        class Handler(Request):
            store = proxy
        self._server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _refuse(self):
        self._server.shutdown()
        self._server.server_close()
        self.cut()

    def follow(self, connection):
        with self._lock:
            self._connections.add(connection)

    def ask(self, method, target, headers, body):
        """Passes the request on; returns status, headers and body of the server's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, target, body=body, headers=signed(f"127.0.0.1:{self.port}", method, target, headers))
            answer = connection.getresponse()
            return answer.status, [(name, value) for name, value in answer.getheaders() if name.lower() not in
                                   ("date", "connection", "transfer-encoding", "content-length")], answer.read()


class Request(http.server.BaseHTTPRequestHandler):
    """The requests of one connection."""

    protocol_version = "HTTP/1.1"
    store = None

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.store.follow(self.connection)

    def log_message(self, *_):
        pass

    def one(self):
        self.close_connection = False
        try:
            body = self.take(int(self.headers.get("content-length", 0)))
            self.give(*self.answered(body))
        except (Cut, OSError):
            self.close_connection = True

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = one

    def is_slow(self):
        return self.store.kind == "10 KB/s"

    def take(self, length):
        taken = bytearray()
        while len(taken) < length:
            part = self.rfile.read1(min(length - len(taken), 1024 if self.is_slow() else 1 << 20))
            if not part:
                raise Cut
            taken += part
            if self.is_slow():
                time.sleep(len(part) / 10_000)
        return bytes(taken)

    def answered(self, body):
        store, kind, method, target = self.store, self.store.kind, self.command, self.path
        if kind == "black hole" and store.hit():
            while store.kind == kind:
                time.sleep(0.05)
            raise Cut
        if refusal := self.refusal(kind):
            return refusal
        if kind == FORGETS and method == "PUT" and "/pack/" in target:
            store.forgotten[target.split("?")[0]] = len(body)
            sums = [(name, value) for name, value in self.headers.items() if name.lower().startswith("x-amz-checksum-")]
            return 200, [("ETag", '"forgotten"'), *sums], b""
        if method == "HEAD" and (length := store.forgotten.get(target.split("?")[0])):
            return 200, [("ETag", '"forgotten"'), ("Content-Length", str(length))], b""
        if kind == "latency" and store.hit():
            time.sleep(store.random.uniform(0.3, 1))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in
                   ("host", "authorization", "x-amz-date", "x-amz-content-sha256", "connection", "content-length", "expect")}
        half = kind == "half kept" and method == "PUT" and len(body) > 1 and store.hit(0.5)
        if half:
            body = body[:len(body) // 2]
            headers = {name: value for name, value in headers.items() if "checksum" not in name.lower()
                       and name.lower() != "content-md5"}
        status, given, content = store.ask(method, target, headers, body)
        if method == "PUT" and status == 200:
            store.puts[urllib.parse.unquote(target.split("?")[0])] = time.monotonic()
        if half:
            given = [(name, value) for name, value in given if "checksum" not in name.lower()]
        if kind in ("lost replies", "late listings") and store.hit(0.5 if kind == "lost replies" else 0.2):
            raise Cut
        if kind == "late replies" and store.hit(0.5):
            time.sleep(store.lateness)
        if kind == "late listings" and "list-type=2" in target:
            content = self.without_new(content)
        if method == "GET" and status in (200, 206) and "list-type" not in target and content:
            if kind == "corrupted bodies" and store.hit(0.5):
                at = store.random.randrange(len(content))
                content = content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1:]
            if kind == "cut bodies" and store.hit(0.5):
                self.give(status, given, content, only=len(content) // 2)
                raise Cut
        return status, given, content

    def refusal(self, kind):
        """Why the request is not carried out, if so."""
        store = self.store
        if kind == "busy" and store.hit(0.7):
            return error(*store.random.choice([(503, "SlowDown"), (500, "InternalError")]))
        if kind == "no bucket" and store.hit():
            return error(404, "NoSuchBucket")
        stamp = self.headers.get("x-amz-date")
        if stamp and kind == "clock":
            made = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
            if abs(made - self.now()) > SKEW_ALLOWED:
                store.hit()
                return error(403, "RequestTimeTooSkewed")
        if f"Credential={store.knows}/" not in self.headers.get("authorization", ""):
            store.hit()
            return error(403, "InvalidAccessKeyId")
        return None

    def without_new(self, content):
        """A listing as it was a moment ago."""
        bucket = self.path.split("?")[0].rstrip("/")

        def judged(found):
            key = urllib.parse.unquote(re.search(rb"<Key>(.*?)</Key>", found[0])[1].decode())
            is_new = time.monotonic() - self.store.puts.get(f"{bucket}/{key}", 0) < LISTING_LATE
            return b"" if is_new and self.store.hit() else found[0]
        content = re.sub(rb"<Contents>.*?</Contents>", judged, content, flags=re.S)
        return re.sub(rb"<KeyCount>\d+</KeyCount>", b"<KeyCount>%d</KeyCount>" % content.count(b"<Contents>"), content)

    def now(self):
        return time.time() + (HOUR if self.store.kind == "clock" else 0)

    def give(self, status, headers, content, only=None):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.store.kind != "no Date" or not self.store.hit():
            self.send_header("Date", email.utils.formatdate(self.now(), usegmt=True))
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        rest = memoryview(b"" if self.command == "HEAD" else content)[:only]
        while rest:
            part = rest[:1024 if self.is_slow() else 1 << 20]
            self.wfile.write(part)
            rest = rest[len(part):]
            if self.is_slow():
                self.store.hit()
                time.sleep(len(part) / 10_000)


def error(status, code):
    return status, [("Content-Type", "application/xml")], f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
