"""The file systems that are compared. Each is made, mounted, left alone until everything is in the bucket, and mounted
again, cold."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request

from weed import KEY, SECRET

PASSWORD = "of the bench"
PATIENCE = 900
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "s3vault-tools")


def run(*words, env=None, **options):
    """Runs a command, which must succeed."""
    done = subprocess.run(words, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}"[:2000])
    return done.stdout


def found(name):
    """Finds a program that is installed, or that scripts/install-test-tools fetched."""
    fetched = [os.path.join(CACHE, file) for file in sorted(os.listdir(CACHE)) if file.startswith(name + "-")] if os.path.isdir(CACHE) else []
    return shutil.which(name) or (fetched[-1] if fetched else None)


def drop_caches():
    run("sync")
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def descendants(pid):
    """A process and all its descendants."""
    parents = {}
    for each in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{each}/stat") as file:
                parents.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(each))
        except OSError:
            pass
    every = [pid]
    for each in every:
        every += parents.get(each, [])
    return every


class System:
    """A directory of this disk, and the base class of all others."""

    name, needs = "ext4", ()

    def __init__(self, scratch, server, port):
        self.scratch, self.server, self.port = scratch, server, port
        self.path = os.path.join(scratch, "mnt")
        os.makedirs(self.path)
        self.processes = []

    def start(self):
        """Makes and mounts it."""

    def until_in_bucket(self):
        """Waits until everything written has reached its destination."""
        run("sync", "-f", self.path)

    def cold(self):
        """Like on a machine that has seen nothing yet, as far as that is possible; at least nothing is in memory."""
        drop_caches()

    def warm(self):
        """What is on this disk stays, what is in memory is dropped."""
        drop_caches()

    def stop(self):
        pass

    def pids(self):
        return [pid for process in self.processes if process.poll() is None for pid in descendants(process.pid)]

    def usage(self):
        """Seconds of CPU so far, and the peak resident memory in MiB since the last mount."""
        cpu, peak = 0.0, 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/stat") as file:
                    words = file.read().rpartition(")")[2].split()
                with open(f"/proc/{pid}/status") as file:
                    peak += next((int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0) // 1024
                cpu += (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
            except OSError:
                pass
        return cpu, peak

    def serve(self, *words, env=None, path=None):
        """Starts a program that mounts in the foreground, and waits for the mount."""
        path = path or self.path
        with open(os.path.join(self.scratch, "log"), "a") as log:
            process = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while not os.path.ismount(path):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                with open(os.path.join(self.scratch, "log")) as log:
                    raise RuntimeError(f"{self.name} does not mount: {log.read()[-500:]}")
            time.sleep(0.01)
        self.processes.append(process)

    def umount(self, path=None):
        """Unmounts, and waits for the process that served the mount: the one that was started last."""
        path = path or self.path
        for _ in range(50):
            if not os.path.ismount(path) or subprocess.run(["umount", path], capture_output=True).returncode == 0:
                break
            time.sleep(0.2)
        if self.processes:
            process = self.processes.pop()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()

    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def bucket(self):
        """A bucket of its own; its name is also valid as a host name."""
        name = f"bench-{os.path.basename(self.scratch)}".lower().replace("_", "-").rstrip("-")
        self.server.request("PUT", f"/{name}")
        return name


class S3vault(System):
    name, needs = "s3vault", ()
    binary = None

    def start(self):
        home = self.home = os.path.join(self.scratch, "home")
        os.makedirs(home)
        self.env = {"HOME": home, "PATH": os.environ["PATH"], "S3VAULT_PASSPHRASE": PASSWORD, "S3VAULT_RECOVERY_FILE": "-",
                    "S3VAULT_MACHINE_ID": home, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
                    "AWS_EC2_METADATA_DISABLED": "true"}
        self.command("init", "--bucket", f"s3://bench/{os.path.basename(self.scratch)}", "--endpoint-url", self.endpoint())
        self.command("mount", self.path)

    def command(self, *words):
        return run(self.binary, *words, env=self.env)

    def pids(self):
        mounts = json.loads(self.command("status", "--json"))["mounts"]
        return [mount["pid"] for mount in mounts]

    def until_in_bucket(self):
        self.command("sync", self.path)

    def again(self, forgets):
        self.command("umount", self.path)
        if forgets:
            shutil.rmtree(os.path.join(self.home, ".local/state"), ignore_errors=True)
        drop_caches()
        self.command("mount", self.path)

    def cold(self):
        self.again(True)

    def warm(self):
        self.again(False)

    def stop(self):
        self.command("umount", self.path)


class Gocryptfs(System):
    name, needs = "gocryptfs, local", ("gocryptfs",)

    def start(self):
        self.cipher = os.path.join(self.scratch, "cipher")
        os.makedirs(self.cipher, exist_ok=True)
        self.make()

    def make(self):
        self.extpass = ["-extpass", "echo", "-extpass", PASSWORD]
        run("gocryptfs", "-q", "-init", *self.extpass, self.cipher)
        self.mount()

    def mount(self):
        self.serve("gocryptfs", "-q", "-fg", *self.extpass, self.cipher, self.path)

    def cold(self):
        self.umount()
        drop_caches()
        self.mount()

    warm = cold

    def stop(self):
        self.umount()


class GocryptfsOverS3fs(Gocryptfs):
    name, needs = "gocryptfs over s3fs", ("gocryptfs", "s3fs")

    def start(self):
        self.cipher = os.path.join(self.scratch, "cipher")
        os.makedirs(self.cipher)
        self.password = os.path.join(self.scratch, "s3fs-password")
        with open(os.open(self.password, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(f"{KEY}:{SECRET}")
        self.name_of_bucket = self.bucket()
        self.lower()
        self.make()

    def lower(self):
        self.serve("s3fs", self.name_of_bucket, self.cipher, "-f", "-o", f"passwd_file={self.password}", "-o", f"url={self.endpoint()}",
                   "-o", "use_path_request_style", path=self.cipher)

    def until_in_bucket(self):
        pass  # s3fs uploads at close

    def cold(self):
        self.stop()
        drop_caches()
        self.lower()
        self.mount()

    warm = cold

    def stop(self):
        self.umount()
        self.umount(self.cipher)


class JuiceFs(System):
    name, needs = "JuiceFS --writeback", ("juicefs", "openssl")

    def start(self):
        key = os.path.join(self.scratch, "key.pem")
        self.env = {**os.environ, "JFS_RSA_PASSPHRASE": PASSWORD}
        run("openssl", "genrsa", "-aes256", "-passout", f"pass:{PASSWORD}", "-out", key, "2048")
        self.meta = f"sqlite3://{self.scratch}/meta.db"
        self.cache = os.path.join(self.scratch, "cache")
        run(found("juicefs"), "format", "--storage", "s3", "--bucket", f"{self.endpoint()}/{self.bucket()}", "--access-key", KEY,
            "--secret-key", SECRET, "--encrypt-rsa-key", key, "--trash-days", "0", self.meta, "bench", env=self.env)
        self.mount()

    def mount(self):
        self.serve(found("juicefs"), "mount", "--no-usage-report", "--writeback", "--cache-dir", self.cache, self.meta, self.path, env=self.env)

    def staged(self):
        with open(os.path.join(self.path, ".stats")) as file:
            return sum(float(line.split()[1]) for line in file if line.startswith("juicefs_staging_blocks"))

    def until_in_bucket(self):
        run("sync", "-f", self.path)
        while self.staged():
            time.sleep(0.02)

    def again(self, forgets):
        self.until_in_bucket()
        self.umount()
        if forgets:
            shutil.rmtree(self.cache, ignore_errors=True)
        drop_caches()
        self.mount()

    def cold(self):
        self.again(True)

    def warm(self):
        self.again(False)

    def stop(self):
        self.umount()


class RcloneCrypt(System):
    name, needs = "rclone mount + crypt", ("rclone",)

    def start(self):
        config, self.cache = os.path.join(self.scratch, "rclone.conf"), os.path.join(self.scratch, "cache")
        password = run(found("rclone"), "obscure", PASSWORD).strip()
        with open(config, "w") as file:
            file.write(f"[store]\ntype = s3\nprovider = Other\nendpoint = {self.endpoint()}\naccess_key_id = {KEY}\n"
                       f"secret_access_key = {SECRET}\n[crypt]\ntype = crypt\nremote = store:{self.bucket()}\npassword = {password}\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.control = f"127.0.0.1:{free.getsockname()[1]}"
        self.words = [found("rclone"), "--config", config, "mount", "crypt:", self.path, "--vfs-cache-mode", "full",
                      "--vfs-write-back", "0s", "--cache-dir", self.cache, "--transfers", "16", "--rc", "--rc-no-auth", "--rc-addr", self.control]
        self.serve(*self.words)

    def dirty(self):
        """Whether a file differs from its object. rclone's queue does not know about a file before the kernel has
        reported its close, which comes after close(2) has returned. Rclone's note of the file tells from the first
        write until the upload is done."""
        for folder, _, names in os.walk(os.path.join(self.cache, "vfsMeta")):
            for name in names:
                try:
                    with open(os.path.join(folder, name)) as file:
                        if json.load(file)["Dirty"]:
                            return True
                except FileNotFoundError:
                    pass
                except ValueError:
                    return True  # it is being written right now
        return False

    def until_in_bucket(self):
        while True:
            asked = urllib.request.Request(f"http://{self.control}/vfs/stats", method="POST")
            with urllib.request.urlopen(asked, timeout=30) as answer:
                disk = json.load(answer)["diskCache"]
            if not disk["uploadsInProgress"] and not disk["uploadsQueued"] and not self.dirty():
                return
            time.sleep(0.05)

    def again(self, forgets):
        self.until_in_bucket()  # what is not there yet would be lost with the cache
        self.umount()
        if forgets:
            shutil.rmtree(self.cache, ignore_errors=True)
        drop_caches()
        self.serve(*self.words)

    def cold(self):
        self.again(True)

    def warm(self):
        self.again(False)

    def stop(self):
        self.umount()


LOCAL = (System, Gocryptfs)
FAR = (S3vault, JuiceFs, RcloneCrypt, GocryptfsOverS3fs)
