"""What every part of scripts/soak stands on: a server, a vault, users on machines of their own, and nothing left at the end.

    with Rig("kills", seed) as rig:              a scratch directory; store=WEED for SeaweedFS, else a directory
        here = rig.machine("here")               a user: home, state directory, machine id, mountpoint
        rig.init(here)                           makes the vault
        here.mount(environment={...})            and finds its daemon
        here.kill()                              SIGKILL, by the daemon's own pid; the next mount cleans up behind it
        here.mount()
        here.umount()
        rig.check()                              `check --read-data`
        with rig.from_bucket_alone() as there:   a machine that knows nothing but bucket and passphrase
            compare(there.mountpoint)

Everything that a rig started is ended by its pid when the `with` ends, also by an exception or a signal (call
`end_with_signals` first). A failure keeps the logs of all daemons in target/evidence/NAME.log.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from weed import KEY, SECRET

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("S3VAULT_BIN") or ROOT / "target/release/s3vault").resolve()
LOGS = ROOT / "target/evidence"
# How long anything may take before it counts as hanging: many times what it needs on a busy machine.
PATIENCE = 120
DIRECTORY, WEED = "directory", "weed"


class Trouble(Exception):
    """Something is lost, wrong or hangs: what this evidence looks for."""


def say(text):
    """Shows progress."""
    print(f"{text} ({time.strftime('%T')})", file=sys.stderr, flush=True)


def end_with_signals():
    """Makes SIGTERM, SIGINT and SIGHUP unwind the program, so that every `with` cleans up."""
    def end(number, _frame):
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, end)


@dataclasses.dataclass
class Done:
    """The result of a command."""
    code: int
    out: str
    err: str


class Process:
    """A process that is not our child, held by a handle so that its pid cannot come to mean another."""

    def __init__(self, pid):
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def ended(self, within=0.0):
        """Waits for its end, for at most `within` seconds; returns whether it came."""
        waiting = select.poll()
        waiting.register(self._handle, select.POLLIN)
        return bool(waiting.poll(within * 1000))

    def kill(self):
        self.signal(signal.SIGKILL)
        if not self.ended(PATIENCE):
            raise Trouble(f"process {self.pid} does not end after SIGKILL")

    def close(self):
        os.close(self._handle)


class Machine:
    """A user on a machine of their own."""

    def __init__(self, rig, name, home=None, environment=None, mountpoint=None):
        self.rig, self.name = rig, name
        self.home = home or rig.scratch / name
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.mountpoint = mountpoint or self.home / "vault"
        # For every command; a mount may have more.
        self.environment = environment or {}
        self.daemon = None

    @property
    def state(self):
        """The vault's state directory: journal, staging, cache, index, logs."""
        return next((self.home / ".local/state/s3vault").glob("?" * 32))

    @property
    def data(self):
        """The user's data directory."""
        return self.home / ".local/share/s3vault"

    @property
    def log(self):
        return self.state / "daemon.log"

    def run(self, *arguments, environment=None, timeout=PATIENCE):
        """Runs a command as typed; raises Trouble if it does not end in time."""
        command = [PROGRAM, "--passphrase-file", self.rig.passphrase, *arguments]
        own = {"PATH": os.environ["PATH"], "HOME": str(self.home), "S3VAULT_MACHINE_ID": str(self.home), "S3VAULT_RECOVERY_FILE": "-",
               "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
        own |= self.environment | (environment or {})
        try:
            done = subprocess.run(command, env=own, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
                                  text=True, errors="replace", check=False)
        except subprocess.TimeoutExpired as expired:
            raise Trouble(f"`s3vault {' '.join(map(str, arguments))}` hangs: {timeout} s") from expired
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, *arguments, **options):
        """Runs a command, which must succeed."""
        done = self.run(*arguments, **options)
        if done.code != 0:
            raise Trouble(f"`s3vault {' '.join(map(str, arguments))}` exits with {done.code}: {done.out}{done.err}")
        return done

    def try_mount(self, *options, environment=None, timeout=PATIENCE):
        """Mounts, and returns the result; the daemon may have died on the way (then `self.daemon` is None)."""
        self.forget_daemon()
        done = self.run("mount", self.mountpoint, *self.rig.where, *options, environment=environment, timeout=timeout)
        if done.code == 0:
            with contextlib.suppress(ProcessLookupError):
                self.daemon = Process(self.status()["pid"])
        return done

    def mount(self, *options, environment=None, timeout=PATIENCE):
        """Mounts, which also cleans up a dead mount at the same place."""
        done = self.try_mount(*options, environment=environment, timeout=timeout)
        if done.code != 0:
            raise Trouble(f"mount exits with {done.code}: {done.out}{done.err}")
        return done

    def status(self):
        """The output of `status --json` for this machine's mount; ProcessLookupError if there is none, or a dead one."""
        done = self.run("status", "--json", self.mountpoint)
        mounts = json.loads(done.out)["mounts"] if done.code == 0 else []
        if not mounts or "pid" not in mounts[0]:
            raise ProcessLookupError(f"nothing is mounted at {self.mountpoint}: {done.err}")
        return mounts[0]

    def sync(self, timeout=PATIENCE):
        return self.must("sync", self.mountpoint, timeout=timeout)

    def umount(self, timeout=PATIENCE):
        """Unmounts; the daemon is gone when this returns."""
        self.must("umount", self.mountpoint, timeout=timeout)
        if self.daemon and not self.daemon.ended(PATIENCE):
            raise Trouble("the daemon goes on after `umount`")
        self.forget_daemon()

    def kill(self):
        """Sends SIGKILL to the daemon. The dead mount stays, as for a user."""
        self.daemon.kill()
        self.forget_daemon()

    def forget_daemon(self):
        if self.daemon:
            self.daemon.close()
        self.daemon = None

    def drop_caches(self):
        """Makes the next reads come from the file system, not from the kernel's page cache."""
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")

    def clean_up(self):
        """Ends every daemon below this home and removes the mount, whatever its state."""
        self.forget_daemon()
        for process in daemons_below(self.mountpoint.parent):
            with contextlib.closing(process):
                process.kill()
        take_mount_away(self.mountpoint)


class Rig:
    """A store and a vault in it."""

    def __init__(self, part, seed, store=DIRECTORY):
        self.part, self.seed, self.store = part, seed, store
        self.machines = []
        # What a part itself has to clean up after all daemons have ended.
        self.at_end = contextlib.ExitStack()
        self._server = None
        self.bucket = self.endpoint = None

    def __enter__(self):
        if not os.access(PROGRAM, os.X_OK):
            raise Trouble(f"{PROGRAM} is not there: build it (scripts/test), or name it by S3VAULT_BIN")
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix=f"s3vault-{self.part}-"))
        self.passphrase = self.scratch / "passphrase"
        self.passphrase.write_text("of the evidence\n")
        try:
            if self.store == WEED:
                self._start_server()
            else:
                self.bucket = f"file://{self.scratch}/bucket"
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, error, _trace):
        for machine in self.machines:
            machine.clean_up()
        if kind not in (None, SystemExit):
            self.keep_logs(error)
        if self._server:
            self._server.kill()
            self._server.wait()
        self.at_end.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _start_server(self):
        # If the program that runs SeaweedFS is killed, that ends, too: each dies with its parent.
        self._server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, ROOT / "scripts/weed.py", self.scratch / "server"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        port = self._server.stdout.readline().strip()
        if not port:
            raise Trouble("SeaweedFS does not start (scripts/install-test-tools fetches it)")
        self.bucket, self.endpoint = f"s3://bench/{self.part}", f"http://127.0.0.1:{port}"

    @property
    def where(self):
        """The options that name the vault."""
        return ["--bucket", self.bucket] + (["--endpoint-url", self.endpoint] if self.endpoint else [])

    def machine(self, name, home=None, environment=None, mountpoint=None):
        """A user on a machine of their own; `home` puts it on another disk (then `mountpoint` must be in a directory
        that is not on it)."""
        machine = Machine(self, name, home, environment, mountpoint)
        self.machines.append(machine)
        return machine

    def init(self, machine):
        """Makes the vault. From then on the recovery key opens it: a passphrase costs 0.8 s of CPU at each mount."""
        said = machine.must("init", *self.where).out
        # It is below the line that introduces it.
        lines = iter(said.splitlines())
        key = next(next(lines).strip() for line in lines if line.startswith("Recovery key"))
        self.passphrase.write_text(key + "\n")

    def check(self, *expected):
        """Runs `check --read-data` as a user who knows nothing else; its exit code must be one of these, or 0."""
        with self._stranger() as stranger:
            done = stranger.run("check", "--read-data", *self.where, timeout=10 * PATIENCE)
        if done.code not in (expected or (0,)):
            raise Trouble(f"`s3vault check --read-data` exits with {done.code}: {done.out}{done.err}")
        return done

    @contextlib.contextmanager
    def from_bucket_alone(self, *options, take_over=False):
        """A mount by a machine that has nothing of the vault but its bucket: to look, or as the next writer."""
        with self._stranger() as stranger:
            stranger.mount("--take-over" if take_over else "--read-only", *options)
            yield stranger
            stranger.umount()

    @contextlib.contextmanager
    def _stranger(self):
        stranger = self.machine(f"stranger-{len(self.machines)}-{random.randrange(1 << 32):x}")
        try:
            yield stranger
        except Exception as error:
            self.keep_logs(error)
            raise
        finally:
            stranger.clean_up()
            self.machines.remove(stranger)
            shutil.rmtree(stranger.home, ignore_errors=True)

    def keep_logs(self, error):
        """Keeps what helps to find the cause."""
        LOGS.mkdir(parents=True, exist_ok=True)
        with open(LOGS / f"{self.part}.log", "a", encoding="utf-8") as kept:
            print(f"== {self.part}, seed {self.seed}, {time.strftime('%F %T')}: {error}", file=kept)
            for machine in self.machines:
                for log in machine.home.glob(".local/state/s3vault/*/daemon.log"):
                    print(f"-- the daemon's log of {machine.name}", file=kept)
                    # A part may have broken the disk that the log is on.
                    with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as lines:
                        kept.writelines(lines.readlines()[-2000:])
        say(f"the logs of the daemons are in {LOGS / self.part}.log")


def is_mounted(path):
    """Whether something is mounted, even a dead mount."""
    return any(line.split()[1] == str(path) for line in open("/proc/mounts", encoding="utf-8", errors="surrogateescape"))


def take_mount_away(path):
    """Unmounts lazily, whatever the state of the mount."""
    if is_mounted(path):
        subprocess.run(["umount", "-l", path], check=False)


def daemons_below(directory):
    """The s3vault daemons that were started for a mountpoint or state directory below a directory, with handles on
    them."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            process = Process(int(entry))
            words = pathlib.Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
            if len(words) > 1 and words[1] == b"daemon" and any(os.fsencode(directory) + b"/" in word for word in words):
                found.append(process)
            else:
                process.close()
    return found
