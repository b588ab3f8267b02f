"""Kills the daemon at each step of its work, makes steps fail, and compares what the next mount shows.

The steps are those of src/os/steps.rs, armed by S3VAULT_FAILPOINT in a program built with the feature `testing`. A
*life* has two mounts. In the first one nothing is armed: what it shows is compared with what the threads did in the
life before, and it is ended so that the step can occur. In the second one a step is armed while the threads change
files; it ends at that step, or else by a SIGKILL at some moment. Every step must be reached: one that never is
counts as an error of this driver. `--quick` does `QUICK_LIVES`, some of each kind of step, chosen by the seed.
"""

import contextlib
import json
import mmap
import os
import random
import re
import time

from model import AWAY, FAULTY, FULL, Worker, Workers
from rig import PROGRAM, ROOT, Rig, Trouble, say

STEPS = dict(re.findall(r'^    (\w+) = "(.*)",$', (ROOT / "src/os/steps.rs").read_text(), re.MULTILINE))
# Small enough that segments of the journal (a sixteenth of it) fill up and are removed; large enough that the threads
# have room beside the index and the data that `lengthen_log` and `write_in_vain` keep waiting.
OPTIONS = ("--cache-size", "128MB")
# How many passes over the steps a vault is used for: nothing in its bucket is deleted yet, so a soak starts anew now
# and then.
PASSES_PER_VAULT = 2
RANDOM_KILLS = 8
QUICK_LIVES = 24
TRIES = 8
# How long the threads work before a life that did not reach its step is ended: if the step comes by chance; and if it
# is provoked, in which case the life ends when the step has come.
LIFE, BROUGHT_ABOUT = 2.0, 60.0

CHECKPOINT = {"PagePut", "ManifestPut", "CheckpointMade", "BaseSwitched", "CoveredDropped"}
# The index is flushed before a segment is removed.
SEGMENTS = {"SegmentMake", "SegmentMade", "SegmentNamed", "SegmentRemoved", "IndexFlushed"}
DROPS = {"DropsNoted", "PackDropped"}
RECLAIM = {"Frozen", "DeletionProven", "Deleted"}
RENEWAL = {"Renewed", "RenewalNoted", "EpochsRetired"}
KEYS = {"SuperblockPut", "OldSuperblocksGone", "KeyEpochBegun"} | RENEWAL
# Steps at a mount: that finds nothing unsent; that finds something unsent; that finds a pack without references; that
# finds that another machine wrote.
CLEAN, UNSENT, STREAM = {"JournalBegun", "OldJournalRemoved"}, {"PackRecovered", "JournalResumed", "JournalReplayed"}, {"PackForgotten"}
ASIDE = {"AsideLinked", "AsideRecorded", "AsideSynced", "AsideNamed"}
ENDS = {"Released", "ReleaseNoted", "CleanNoted"}
AT_MOUNT = CLEAN | UNSENT | STREAM | ASIDE | {"Claimed"}
# Steps that come once in a life or seldom, and steps that come a few times per second. All others come often.
SELDOM = CHECKPOINT | SEGMENTS | DROPS | RECLAIM | KEYS | AT_MOUNT | ENDS | {"IndexWritten", "IndexWrite"}
AT_TIMES = {"CommitPrepared", "CommitPut", "CommitConfirmed", "Noted", "HeadRemembered", "PackLeft", "DirectorySynced"}
# The quick form has one of each of these.
KINDS = [CHECKPOINT, SEGMENTS, DROPS, RECLAIM, KEYS, CLEAN, UNSENT, STREAM, ASIDE, ENDS, AT_TIMES, set(STEPS) - SELDOM - AT_TIMES]
# After ENOSPC at one of these, everything goes on (J8).
GOES_ON_WHEN_FULL = {"PackMake", "PackWrite", "PackClose", "JournalWrite", "SegmentMake"}


def run(task):
    program_has_failpoints()
    passes = 0
    while True:
        with Rig(task.part, task.seed) as rig:
            steps = Steps(task, rig)
            with contextlib.closing(steps):
                for _ in range(1 if task.quick else PASSES_PER_VAULT):
                    passes += steps.all_steps()
                steps.end()
        if task.quick or not task.goes_on():
            break
    if not task.quick:
        task.notes.append(f"{passes} whole passes over {len(STEPS)} steps")


def program_has_failpoints():
    with open(PROGRAM, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as program:
        if program.find(b"S3VAULT_FAILPOINT") < 0:
            raise Trouble(f"{PROGRAM} has no failpoints: build it with the feature `testing` (scripts/test does)")
        if missing := [name for name in STEPS.values() if program.find(name.encode()) < 0]:
            raise Trouble(f"{PROGRAM} was built from other sources: it has no step {missing}")


class Steps:
    """A vault, and what was done to it."""

    def __init__(self, task, rig):
        self.task, self.rig = task, rig
        self.random = random.Random(f"{task.seed}/steps/{task.trials}")
        self.here, self.workers = rig.machine("here"), Workers(f"{task.seed}/{task.trials}")
        self.operations_before = task.operations
        rig.init(self.here)
        # What every life leaves to be judged: everything that returned, or only what is in the bucket.
        self.at_least = Worker.in_journal

    def close(self):
        self.workers.end()

    # One pass.

    def all_steps(self):
        """Does one pass; returns whether it was complete."""
        plan, tries, unreached = self.plan(), {}, []
        for done, (step, what) in enumerate(plan):
            if not self.task.quick and not self.task.goes_on():
                return False
            begun = time.monotonic()
            if step and not self.life(step, what, tries.get((step, what), 0)):
                tries[step, what] = tries.get((step, what), 0) + 1
                (plan if tries[step, what] < TRIES else unreached).append((step, what))
            if not step:
                self.random_kill()
            if (took := time.monotonic() - begun) > 5 * LIFE:
                say(f"{self.task.part}: {step} {what} after {tries.get((step, what), 0)} tries: {took:.0f} s")
            if done % 10 == 9:
                self.judge_bucket_alone()
        if unreached:
            raise Trouble(f"never reached: {[(STEPS[step], what) for step, what in unreached]}")
        return not self.task.quick

    def plan(self):
        """What is done at which step; None: a kill at any moment."""
        plan = [(step, "kill") for step in STEPS]
        plan += [(step, error) for step in STEPS if STEPS[step].startswith("before") for error in ("EIO", "ENOSPC")]
        plan += [(None, None)] * RANDOM_KILLS
        self.random.shuffle(plan)
        if self.task.quick:
            first = [next(each for each in plan if each[0] in kind) for kind in KINDS]
            plan = (first + [each for each in plan if each not in first])[:QUICK_LIVES]
            self.random.shuffle(plan)
            self.task.notes.append("steps: " + ", ".join(f"{step} {what}" if step else "any" for step, what in plan))
            say(f"{self.task.part}: {self.task.notes[-1]}")
        return plan

    def random_kill(self):
        self.mount_and_judge()
        self.work(lambda: time.sleep(self.random.uniform(0.02, 0.8)))
        self.kill()

    def life(self, step, what, tries):
        """Returns whether the step was reached; afterwards the mount is dead or gone."""
        self.mount_and_judge()
        self.prepare(step)
        most = 2 if step in SELDOM or tries > 1 else 6 if step in AT_TIMES else 30
        seen = self.log_length()
        armed = {"S3VAULT_FAILPOINT": f"{STEPS[step]},{self.random.randrange(1, most)},{what}"}
        done = self.here.try_mount(*OPTIONS, environment=armed)
        if done.code == 0:
            self.armed_life(step, what, seen)
        elif not self.was_reached(step, seen):
            raise Trouble(f"a mount ends with {done.code}, and not at {STEPS[step]!r}: {done.out}{done.err}")
        reached = self.was_reached(step, seen)
        self.task.faults += reached
        return reached

    def armed_life(self, step, what, seen):
        """Lets a mount that was made run to its end."""
        if step not in AT_MOUNT:
            errors = FAULTY if what != "kill" else AWAY if step in DROPS else ()
            self.work(lambda: self.until_reached(step, seen), errors)
            if what == "ENOSPC" and step in GOES_ON_WHEN_FULL and self.was_reached(step, seen):
                self.goes_on()
        is_dead = not self.here.daemon or self.here.daemon.ended()
        if is_dead and (what != "kill" or not self.was_reached(step, seen)):
            raise Trouble(f"the daemon ends by itself, armed with {STEPS[step]!r} {what}")
        if step in ENDS:
            self.try_umount()
        else:
            self.kill()

    # How a life begins, goes on and ends.

    def mount_and_judge(self):
        """Mounts with nothing armed: nothing may fail."""
        self.here.mount(*OPTIONS)
        self.workers.after_kill(self.here.mountpoint, self.at_least)
        self.at_least = Worker.in_journal
        self.task.trials += 1
        self.task.operations = self.operations_before + self.workers.operations

    def prepare(self, step):
        """Ends the mount so that the next one meets the step, or can."""
        if step in ASIDE:
            self.write_elsewhere()
        elif step in CLEAN:
            self.umount()
        elif step in UNSENT | STREAM:
            self.work(lambda: self.leave_a_stream() if step in STREAM else time.sleep(0.3))
            self.kill()
        else:
            self.kill()

    def work(self, meanwhile, errors=()):
        self.workers.begin(self.here.mountpoint, errors)
        try:
            meanwhile()
        finally:
            self.workers.ask_to_rest()

    def kill(self):
        if self.here.daemon:
            self.here.kill()
            self.task.faults += 1
        self.workers.rest()

    def umount(self):
        self.workers.rest()
        self.workers.close_files()
        self.here.umount()
        self.workers.synced()

    def try_umount(self):
        """Unmounts, which fails if the daemon dies on the way."""
        self.workers.rest()
        with contextlib.suppress(OSError):
            self.workers.close_files()
        self.here.run("umount", self.here.mountpoint)
        if self.here.daemon and not self.here.daemon.ended(10):
            raise Trouble("the daemon goes on after `umount`")
        self.here.forget_daemon()

    def end(self):
        self.mount_and_judge()
        self.umount()
        self.rig.check()
        self.judge_bucket_alone()

    def judge_bucket_alone(self):
        with self.rig.from_bucket_alone() as there:
            self.workers.judge(there.mountpoint, Worker.in_bucket)
        self.mount_and_judge()
        self.here.sync()
        self.workers.synced()
        self.kill()
        say(f"{self.task.part}: {self.task.trials} trials, {self.task.operations} operations")

    # What brings a step about.

    def until_reached(self, step, seen):
        until = time.monotonic() + (BROUGHT_ABOUT if step in CHECKPOINT | SEGMENTS | DROPS | RECLAIM | KEYS else LIFE)
        if step in DROPS:
            # What creating a name needs is fetched before the store goes away. The step may be reached already.
            with contextlib.suppress(OSError):
                self.write_in_vain()
        away = self.store_away() if step in DROPS else contextlib.nullcontext()
        with away, contextlib.suppress(OSError):  # the daemon dies
            while time.monotonic() < until and not self.was_reached(step, seen):
                if step in CHECKPOINT | SEGMENTS:
                    self.lengthen_log(12)
                elif step in DROPS:
                    self.write_in_vain()
                elif step in RECLAIM:
                    self.reclaim()
                elif step in KEYS:
                    self.change_keys(step)
                self.here.daemon.ended(0.05)

    def change_keys(self, step):
        """Adds or removes a passphrase, or rotates the key. The recovery key that opens the vault stays."""
        if step == "KeyEpochBegun":
            self.here.run("key", "rotate", self.here.mountpoint)
            return
        if step in RENEWAL:
            self.renew(step)
            return
        listed = self.here.run("key", "list", "--json", self.here.mountpoint)
        if listed.code != 0:
            return
        added = [slot["id"] for slot in json.loads(listed.out)["slots"] if slot["label"] == "added"]
        if added:
            self.here.run("key", "remove", added[0], self.here.mountpoint)
        else:
            secret = self.rig.scratch / "added"
            secret.write_text("a passphrase that comes and goes")
            self.here.run("key", "add", self.here.mountpoint, "--label", "added", "--new-passphrase-file", secret)

    def renew(self, step):
        """Reseals everything with a new key; then what the old one sealed is deleted, as if ten days had gone by."""
        rotated = False
        with contextlib.suppress(ProcessLookupError):
            if "renewal" in self.here.status():
                rotated = True
        if not rotated:
            self.here.run("key", "rotate", "--rewrite", self.here.mountpoint)
        if step == "EpochsRetired":
            then = time.time() - 10 * 24 * 3600
            for folder in ("log", "page", "checkpoint", "pack"):
                for path in (self.rig.scratch / "bucket" / folder).rglob("*"):
                    with contextlib.suppress(FileNotFoundError):
                        os.utime(path, (then, then))
            self.reclaim()

    @contextlib.contextmanager
    def store_away(self):
        bucket = self.rig.scratch / "bucket"
        away = bucket.with_name("away")
        bucket.rename(away)
        try:
            yield
        finally:
            away.rename(bucket)

    def elsewhere(self):
        path = self.here.mountpoint / "elsewhere"
        path.mkdir(exist_ok=True)
        return path

    def lengthen_log(self, mebibytes):
        """A checkpoint is due after 8 MiB of log, and a segment of so small a journal is full after 8 MiB; it is
        removed when the bucket has all of it."""
        file = self.elsewhere() / "attributes"
        file.touch()
        for number in range(16 * mebibytes):
            os.setxattr(file, f"user.{number % 16}", self.random.randbytes(60_000))
        self.here.run("sync", self.here.mountpoint)
        self.barrier()

    def write_in_vain(self):
        """Makes packs that nothing refers to any more, while the store is away. They are dropped unsent, at a barrier
        that notes them."""
        for number in range(4):
            file = self.elsewhere() / f"in vain {number}"
            file.write_bytes(self.random.randbytes(1_200_000))
            file.unlink()
        self.barrier()

    def reclaim(self):
        """Makes something in the bucket unreferenced, so that it is deleted once it is older than the retention."""
        file = self.elsewhere() / "dead"
        file.write_bytes(self.random.randbytes(1_200_000))
        for command in (["sync"], ["retention", "1s"], ["gc"]):
            self.here.run(*command, self.here.mountpoint)
            file.unlink(missing_ok=True)

    def barrier(self):
        with open(self.elsewhere() / "barrier", "wb", buffering=0) as file:
            file.write(b"x")
            os.fsync(file.fileno())

    def leave_a_stream(self):
        """Makes a pack of its own, of a file that is not closed before the kill."""
        time.sleep(0.1)
        with open(self.elsewhere() / "stream", "wb", buffering=0) as file:
            for _ in range(12):
                file.write(self.random.randbytes(250_000))
            self.here.kill()
            with contextlib.suppress(OSError):
                file.close()

    def write_elsewhere(self):
        """Leaves something unsent here, and lets another machine write meanwhile, so that it no longer fits the log."""
        with self.store_away():
            # The index of a long life leaves half of so small a budget, and nothing is sent meanwhile.
            self.work(lambda: time.sleep(0.3), FULL)
            self.kill()
        with self.rig.from_bucket_alone(take_over=True) as there:
            (there.mountpoint / f"written there {self.task.trials}").touch()
        # What was not sent is set aside: the mount shows what the bucket had.
        self.at_least = Worker.in_bucket

    def goes_on(self):
        self.workers.rest()
        path = self.elsewhere() / f"{self.random.randrange(1 << 32):x}"
        path.write_bytes(self.random.randbytes(10_000))
        path.unlink()

    # What the daemon's log says of it.

    def log_length(self):
        return self.here.log.stat().st_size

    def was_reached(self, step, seen):
        with open(self.here.log, "rb") as log:
            # A long log is rotated.
            log.seek(seen if seen <= os.fstat(log.fileno()).st_size else 0)
            return any(b"a failpoint" in line and STEPS[step].encode() in line for line in log)
