"""Power cuts on a real disk: state and data directory are on ext4 and XFS, which are shut down at random moments.

What was fsynced, or synced to the bucket, or is older than the barrier of every 5 s (J2), is there when the machine
has booted again. Everything else is old or new (V1), in the order in which it was done. The machine boots each time,
with a new boot id. Some cuts come during the next mount, and some right after `sync` and `umount` returned. On every
other disk the bucket is, too.
"""

import contextlib
import random
import shutil
import threading
import time

from disk import KINDS, Disk, command, own_mounts
from model import Worker, Workers
from rig import Rig, Trouble, daemons_below, say, take_mount_away

# The most cuts that a disk is used for. Nothing in its bucket is deleted yet, so a soak starts anew now and then.
CUTS_PER_DISK = 40
# J2 makes everything durable every 5 s; a busy machine gets twice as long.
SETTLED = 10


def run(task):
    with own_mounts() as boot:
        for number in range(1 << 30):
            with Rig(task.part, task.seed) as rig:
                OneVault(task, rig, boot, number).run()
            if task.quick or not task.goes_on():
                return


class OneVault:
    """A vault, its machine on a disk of its own, and the cuts that it goes through; then another machine."""

    def __init__(self, task, rig, boot, number):
        self.task, self.rig, self.boot, self.number = task, rig, boot, number
        self.name = f"{task.seed}/{task.trials}"
        self.chance = random.Random(f"{self.name}/cuts")
        self.workers = Workers(self.name)
        self.disk = self.here = None

    def run(self):
        before = self.task.operations
        try:
            for kind in KINDS:
                with self.machine_on(kind):
                    for moment in self.moments(kind):
                        moment()
                        self.task.operations = before + self.workers.operations
                        say(f"{self.task.part}: {self.task.trials} cuts, the last {moment.__name__} on {kind} ({self.name}), "
                            f"{self.task.operations} operations")
        except Trouble as error:
            self.rig.keep_logs(error)
            raise
        finally:
            self.workers.end()

    def moments(self, kind):
        if self.task.quick:
            yield from [self.at_work, self.while_mounting, self.after_sync, self.at_work]
            yield self.settled if kind == KINDS[self.task.seed % 2] else self.after_umount
            return
        chances = {self.at_work: 8, self.while_mounting: 3, self.after_sync: 2, self.after_umount: 1, self.settled: 1}
        for _ in range(CUTS_PER_DISK):
            yield self.chance.choices(list(chances), chances.values())[0]
            if self.disk.is_filling() or not self.task.goes_on():
                return

    @contextlib.contextmanager
    def machine_on(self, kind):
        """Gives the machine a disk of this kind; every other time the vault's bucket is on it, too. In the end the
        bucket is checked."""
        place = self.rig.scratch / kind
        self.disk = Disk(kind, place, self.boot)
        self.rig.at_end.callback(self.disk.close)
        # The mountpoint is elsewhere: the disk must be unmounted while a dead mount may still be there.
        self.here = self.rig.machine(kind, home=self.disk.at / "home", mountpoint=place / "vault")
        elsewhere, on_disk = self.rig.scratch / "bucket", self.disk.at / "bucket"
        is_first = not elsewhere.exists()
        if (self.number + KINDS.index(kind)) % 2:
            self.rig.bucket = f"file://{on_disk}"
            if not is_first:
                shutil.copytree(elsewhere, on_disk)
                command("sync", "-f", on_disk)
        if is_first:
            self.rig.init(self.here)
        self.here.mount()
        yield
        self.here.umount()
        self.workers.synced()
        self.rig.check()
        self.from_bucket()
        if on_disk.exists():
            shutil.copytree(on_disk, elsewhere, dirs_exist_ok=True)
            self.rig.bucket = f"file://{elsewhere}"
        self.disk.close()

    # The moments of a cut.

    def at_work(self):
        self.work(self.chance.uniform(0.05, 1.5))
        self.cut_and_come_back()
        self.mount_and_judge()

    def while_mounting(self):
        """A second cut while the result of the first one is checked."""
        self.work(self.chance.uniform(0.05, 1.0))
        self.cut_and_come_back()
        mounting = threading.Thread(target=self.mount_in_vain, daemon=True)
        mounting.start()
        time.sleep(self.chance.uniform(0, 0.3))
        self.cut()
        mounting.join()
        self.come_back()
        self.mount_and_judge()

    def after_sync(self):
        self.workers.begin_for(self.here.mountpoint, self.chance.uniform(0.05, 1.0))
        self.here.sync()
        self.workers.synced()
        self.from_bucket()
        self.cut_and_come_back()
        self.mount_and_judge()

    def after_umount(self):
        self.workers.begin_for(self.here.mountpoint, self.chance.uniform(0.05, 1.0))
        self.workers.close_files()
        self.here.umount()
        self.workers.synced()
        self.cut_and_come_back()
        self.mount_and_judge()

    def settled(self):
        """What is older than the barrier is there, without any fsync."""
        self.workers.begin_for(self.here.mountpoint, self.chance.uniform(0.05, 1.0))
        time.sleep(SETTLED)
        self.cut_and_come_back()
        self.mount_and_judge(Worker.in_journal)

    # What they are made of.

    def work(self, seconds):
        self.workers.begin(self.here.mountpoint)
        time.sleep(seconds)
        self.workers.power_off()

    def cut_and_come_back(self):
        self.cut()
        self.workers.rest()
        self.come_back()

    def cut(self):
        """The disk goes, and a little later the daemon: it must not promise too much in between."""
        self.task.trials, self.task.faults = self.task.trials + 1, self.task.faults + 1
        self.disk.cut()
        time.sleep(self.chance.choice([0, 0, 0.02, 0.2]))
        for process in daemons_below(self.here.mountpoint.parent):
            process.kill()
            process.close()
        self.here.forget_daemon()

    def come_back(self):
        take_mount_away(self.here.mountpoint)
        self.disk.back()

    def mount_in_vain(self):
        """A mount that may or may not be made before the cut."""
        try:
            self.here.try_mount()
        except (Trouble, OSError, ValueError):
            pass

    def mount_and_judge(self, at_least=Worker.fsynced):
        self.here.mount()
        self.workers.after_kill(self.here.mountpoint, at_least)

    def from_bucket(self):
        with self.rig.from_bucket_alone() as there:
            self.workers.judge(there.mountpoint, Worker.in_bucket)
