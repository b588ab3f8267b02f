"""The way to the store fails in every possible way (faulty.FAULTS) while threads use a mount.

There are three kinds of threads. Workers (model.py) change files: nothing that they do needs the store, so nothing
may fail. Readers fetch what is not on this machine: they must get the right bytes or an error. Callers change what
this machine does not know yet, which needs pages of the map: a call that succeeds holds, and after one that failed
the old state holds for good (V5). No call takes longer than LONGEST. `status` says what is wrong and for how long;
`umount --force` ends the mount; everything resumes by itself; and in the end mount, bucket and model agree."""

import collections
import errno
import os
import random
import threading
import time

from faulty import FAULTS, Faulty
from model import Lost, Worker, Workers
from rig import PATIENCE, WEED, Rig, Trouble, say

# A request has 35 s, and 10 s more if it had an effect (ARCHITECTURE); plus an allowance for a busy machine.
LONGEST = 50
FORCE_LONGEST = 30
# How long nothing may move.
RESUMES_WITHIN = 90
# Long enough that the deadline passes, for faults that never answer.
OUTAGE = 40
# Faults that `status` must name before they end.
SAID = ("refused", "black hole", "no bucket", "credentials")
SUBJECTS, BIG = 320, 1_200_000


def run(task):
    while True:
        with Rig(task.part, task.seed, store=WEED) as rig, Faulty(int(rig.endpoint.rsplit(":", 1)[1]), task.seed) as store:
            Trial(task, rig, store).run()
        if task.quick or not task.goes_on():
            return


class Clock:
    """The longest call of each kind, and how late this machine itself is, which is not the mount's fault."""

    def __init__(self):
        self.longest, self.late = collections.Counter(), 0.0
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while True:
            begun = time.monotonic()
            time.sleep(0.05)
            self.late = max(self.late, time.monotonic() - begun - 0.05)

    def time(self, kind, call):
        begun = time.monotonic()
        try:
            return call()
        finally:
            self.longest[kind] = max(self.longest[kind], time.monotonic() - begun)

    def check(self):
        for kind, took in self.longest.items():
            if took > LONGEST + self.late:
                raise Trouble(f"a call of {kind} took {took:.0f} s (this machine was late by {self.late:.1f} s)")

    def __str__(self):
        return ", ".join(f"{kind} {took:.1f}" for kind, took in self.longest.most_common(6))


class Subject:
    """Something that is in the bucket and not on this machine, and its state: old, or new."""

    def __init__(self, root, number):
        self.number, self.is_link = number, number % 2 == 0
        self.path = os.path.join(root, f"{number:03}")
        self.rest = random.Random(f"subject {number}")
        self.value = self.rest.randbytes(60_000)
        # A long target makes the inode's record long, and so puts it on a page that nothing else has fetched.
        self.target = "/" + "/".join(self.rest.randbytes(50).hex() for _ in range(38))
        self.state = "old"
        self.failed = None

    def make(self):
        if self.is_link:
            os.symlink(self.target, self.path)
        else:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.setxattr(self.path, "user.value", self.value)

    def change(self, clock):
        """Makes one call; its result decides what must be there from then on."""
        kinds = ["rename", "unlink", "chown"] if self.is_link else ["setxattr", "unlink", "rename"]
        kind = kinds[self.number // 2 % 3]
        call = {"rename": lambda: os.rename(self.path, self.path + " new"),
                "unlink": lambda: os.unlink(self.path),
                "chown": lambda: os.chown(self.path, 12, 34, follow_symlinks=False),
                "setxattr": lambda: os.setxattr(self.path, "user.value", b"new")}[kind]
        try:
            clock.time(f"{kind} of what is elsewhere", call)
            self.state = kind
        except OSError as error:
            self.failed = f"{kind} failed: {errno.errorcode.get(error.errno, error.errno)}"

    def judge(self, root):
        path = os.path.join(root, f"{self.number:03}")
        here = path + " new" if self.state == "rename" else path
        gone = [each for each in (path, path + " new") if each != here or self.state == "unlink"]
        found = [each for each in gone if os.path.lexists(each)]
        right = not found
        if right and self.state != "unlink":
            if not os.path.lexists(here):
                right = False
            elif self.is_link:
                owner = os.lstat(here)
                owners = (12, 34) if self.state == "chown" else (os.getuid(), os.getgid())
                right = os.readlink(here) == self.target and (owner.st_uid, owner.st_gid) == owners
            else:
                right = os.getxattr(here, "user.value") == (b"new" if self.state == "setxattr" else self.value)
        if not right:
            raise Lost(f"subject {self.number}: expected {self.state} ({self.failed or 'nothing failed'}), and that is not there")


class Paced(Worker):
    """A worker that is not faster than a busy user, so that what waits through an outage stays bounded."""

    clock = None

    def do(self, step, call):
        return self.clock.time(step[0], lambda: super(Paced, self).do(step, call))

    def one_thing(self):
        super().one_thing()
        time.sleep(0.03)


class Trial:
    """One vault."""

    def __init__(self, task, rig, store):
        self.task, self.rig, self.store = task, rig, store
        self.clock, self.chance = Clock(), random.Random(f"{task.seed}/network/{task.trials}")
        self.direct = rig.endpoint
        self.subjects, self.bigs = [], []
        self.resumed = self.forced = 0.0
        self.failures = 0
        Paced.clock = self.clock
        self.workers = Workers(f"{task.seed}/{task.trials}", kind=Paced)

    def run(self):
        operations = self.task.operations
        try:
            self.prepare()
            kinds = list(FAULTS)
            self.chance.shuffle(kinds)
            for kind in kinds:
                self.one_fault(kind)
                self.task.operations = operations + self.workers.operations
                if not self.task.quick and not self.task.goes_on():
                    break
            self.workers.close_files()
            self.here.umount(timeout=RESUMES_WITHIN)
            self.workers.synced()
            self.rig.endpoint = self.direct
            self.rig.check()
            with self.rig.from_bucket_alone() as there:
                self.workers.judge(there.mountpoint, Worker.in_bucket)
                self.judge(there.mountpoint)
        except Trouble as error:
            self.rig.keep_logs(error)
            raise
        finally:
            self.workers.end()
        self.task.notes = [f"longest calls {self.clock} s", f"{self.failures} calls failed and changed nothing",
                           f"resumed within {self.resumed:.0f} s", f"umount --force {self.forced:.1f} s"]

    def prepare(self):
        """What the machine under test does not have, since another one made it."""
        first = self.rig.machine("first")
        self.rig.init(first)
        first.mount()
        root = first.mountpoint / "subjects"
        root.mkdir()
        subjects = [Subject(root, number) for number in range(SUBJECTS)]
        for subject in subjects:
            subject.make()
        for number in range(2 * len(FAULTS)):
            (first.mountpoint / f"big {number}").write_bytes(big(number))
        first.sync()
        until = time.monotonic() + PATIENCE
        while not list_checkpoints(self.store, self.rig):
            if time.monotonic() > until:
                raise Trouble("no checkpoint was made of more than 8 MiB of log")
            time.sleep(0.2)
        first.umount()
        self.rig.endpoint = self.store.endpoint
        self.here = self.rig.machine("here")
        self.here.mount()
        self.subjects = [Subject(self.here.mountpoint / "subjects", number) for number in range(SUBJECTS)]
        self.to_change = list(self.subjects)
        self.chance.shuffle(self.to_change)
        self.bigs = list(range(2 * len(FAULTS)))
        # The workers' own directories are new to this machine's map; what they do later is not.
        self.workers.begin(self.here.mountpoint)
        time.sleep(0.5)
        self.workers.rest()
        self.here.sync()
        self.workers.synced()

    def one_fault(self, kind):
        self.task.trials += 1
        lasts = 1.5 if self.task.quick else OUTAGE
        lateness = 1 if self.task.quick else 35
        say(f"{self.task.part}: {kind}: {FAULTS[kind]}")
        troubles = []
        with self.store.fault(kind, lateness):
            begun = time.monotonic()
            self.workers.begin(self.here.mountpoint)
            callers = [threading.Thread(target=self.change, args=(subject, troubles)) for subject in self.take(12)]
            callers.append(threading.Thread(target=self.read, args=(self.bigs.pop(), troubles)))
            for caller in callers:
                caller.start()
            if kind == "credentials":
                self.store.knows = "rotated"
            if kind in SAID:
                self.is_said(kind)
            if kind == "credentials":
                self.rotate()
            if kind == "black hole" and self.task.quick:
                # Each caller has met its deadline, so the fault has lasted long enough.
                self.join(callers, troubles)
            time.sleep(max(0, begun + lasts - time.monotonic()))
            if kind == "black hole":
                self.join(callers, troubles)
                # Their files stay open. (What they did after it would go into the directory below the mount.)
                self.workers.rest()
                self.force()
            hits = self.store.hits
        self.task.faults += hits
        healed = time.monotonic()
        self.join(callers, troubles)
        self.workers.rest()
        if kind == "black hole":
            self.here.mount()
            self.workers.after_kill(self.here.mountpoint)
        self.sync_while_moving()
        self.resumed = max(self.resumed, time.monotonic() - healed)
        self.workers.synced()
        self.judge(self.here.mountpoint)
        self.clock.check()
        say(f"{self.task.part}: {hits} faults; longest calls: {self.clock}")

    def sync_while_moving(self):
        """Waits as long as something moves: how fast is up to this machine."""
        moved, since = None, time.monotonic()
        while (status := self.here.status())["unsent_changes"] + status["unsent_packs"]:
            now = [status[name] for name in ("moved_bytes", "unsent_changes", "unsent_packs", "unsent_bytes")]
            if now != moved:
                moved, since = now, time.monotonic()
            elif time.monotonic() - since > RESUMES_WITHIN:
                raise Trouble(f"nothing moves for {RESUMES_WITHIN} s: {status.get('trouble')} {status['warnings']}")
            time.sleep(0.2)
        self.here.sync(timeout=RESUMES_WITHIN)

    def take(self, count):
        taken, self.to_change = self.to_change[:count], self.to_change[count:]
        return taken

    def change(self, subject, troubles):
        try:
            subject.change(self.clock)
            self.failures += subject.failed is not None
        except Exception as error:  # reported to the driver's thread
            troubles.append(error)

    def read(self, number, troubles):
        """Reads must give the right bytes or an error, and the right bytes when the fault is over."""
        expected, at = big(number), 0
        until = time.monotonic() + OUTAGE + RESUMES_WITHIN
        try:
            with open(self.here.mountpoint / f"big {number}", "rb", buffering=0) as file:
                while at < len(expected):
                    try:
                        part = self.clock.time("read", lambda: os.pread(file.fileno(), 1 << 17, at))
                    except OSError as error:
                        if error.errno != errno.EIO or time.monotonic() > until:
                            raise
                        if self.here.daemon is None or self.store.kind == "black hole":
                            return
                        continue
                    if not part or part != expected[at:at + len(part)]:
                        raise Lost(f"big {number}: other bytes than were written, from byte {at} on")
                    at += len(part)
        except Exception as error:  # as above
            troubles.append(error)

    def join(self, callers, troubles):
        until = time.monotonic() + OUTAGE + RESUMES_WITHIN
        for caller in callers:
            caller.join(max(0, until - time.monotonic()))
            if caller.is_alive():
                raise Trouble("a call hangs")
        if troubles:
            raise troubles[0] if isinstance(troubles[0], Trouble) else Trouble(f"a call: {troubles[0]!r}")

    def is_said(self, kind):
        """Checks that `status` names what is wrong, and what waits."""
        until, said = time.monotonic() + LONGEST, None
        while time.monotonic() < until:
            status = self.here.status()
            said = [status.get("trouble"), *status["warnings"]]
            waits = status["unsent_changes"] + status["unsent_packs"]
            if waits and any(said):
                return
            time.sleep(0.2)
        raise Trouble(f"{kind}: `status` does not say what is wrong: {said}")

    def rotate(self):
        self.here.environment = {"AWS_ACCESS_KEY_ID": "rotated"}
        self.here.must("credentials", self.here.mountpoint)

    def force(self):
        begun = time.monotonic()
        done = self.here.run("umount", "--force", self.here.mountpoint)
        self.forced = max(self.forced, time.monotonic() - begun)
        if done.code != 22 or self.forced > FORCE_LONGEST:
            raise Trouble(f"umount --force exits with {done.code} after {self.forced:.0f} s: {done.out}{done.err}")
        if not self.here.daemon.ended(1):
            raise Trouble("the daemon goes on after `umount --force`")

    def judge(self, mountpoint):
        for subject in self.subjects:
            if subject not in self.to_change:
                subject.judge(mountpoint / "subjects")


def big(number):
    return random.Random(f"big {number}").randbytes(BIG)


def list_checkpoints(store, rig):
    bucket, prefix = rig.bucket.removeprefix("s3://").split("/", 1)
    target = f"/{bucket}?list-type=2&prefix={prefix}%2Fcheckpoint%2F"
    return b"<Key>" in store.ask("GET", target, {}, b"")[2]
