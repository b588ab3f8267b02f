"""Checks that disk and memory stay within their budgets, whatever is done to the mount.

Memory is the daemon's peak resident size according to the kernel (VmHWM): at most 300 MiB with the defaults,
otherwise `--memory` plus 64 MiB. Disk is the size of the whole state directory, sampled ten times a second while it
is filled. `--quick` does a part of each (`Sizes`), `--share N` an Nth.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import os
import random
import subprocess
import threading
import time

from faulty import FORGETS, Faulty
from link import Link
from rig import DIRECTORY, PATIENCE, WEED, Rig, Trouble, say

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MBIT = 10**6 // 8
# For every budget, and for every kind of work.
OVER, DEFAULT_BOUND = 64, 300
HOURS = 3600


@dataclasses.dataclass
class Sizes:
    """How much of each kind of work is done."""
    written: int
    link: int
    files: int
    readers: int
    each_reads: int
    entries: int
    random_writes: int
    sources: int

    def part(self, share):
        """A fraction of all that is work, but the same link speed and number of readers."""
        return dataclasses.replace(self, **{name: getattr(self, name) // share for name in
                                            ("written", "files", "entries", "random_writes", "sources")})


FULL = Sizes(written=20 * GIB, link=800 * MBIT, files=1_000_000, readers=64, each_reads=16 * MIB, entries=1_000_000,
             random_writes=200_000, sources=400)
QUICK = Sizes(written=256 * MIB, link=400 * MBIT, files=12_000, readers=64, each_reads=MIB, entries=30_000,
              random_writes=10_000, sources=12)


def run(task):
    sizes = QUICK if task.quick else FULL.part(task.share)
    chance = random.Random(f"{task.seed}/budgets")
    if task.quick:
        plan = [(night, None), (memory, "64MiB"), (link_and_readers, None)]
    else:
        plan = [(night, None), (link_and_readers, None), (link_and_readers, "64MiB"), (memory, None), (memory, "64MiB"),
                (memory, "1GiB")]
    for part, limit in plan:
        part(task, sizes, chance, limit)


# Memory.

class Watched:
    """A mount whose daemon's memory is checked after each piece of work."""

    def __init__(self, task, machine, limit):
        self.task, self.machine, self.peaks = task, machine, {}
        self.bound = DEFAULT_BOUND if limit is None else mebibytes(limit) + OVER
        self.options = [] if limit is None else ["--memory", limit]
        self.name = limit or "defaults"

    def mount(self, *options):
        self.machine.mount(*self.options, *options)

    def end(self):
        self.machine.umount(timeout=HOURS)
        peaks = ", ".join(f"{what} {peak}" for what, peak in self.peaks.items())
        self.task.notes.append(f"memory with {self.name} (at most {self.bound} MiB): {peaks}")

    @contextlib.contextmanager
    def doing(self, what):
        """One trial: its result is the peak memory since its beginning."""
        with open(f"/proc/{self.machine.daemon.pid}/clear_refs", "w", encoding="ascii") as reset:
            reset.write("5")
        begun = time.monotonic()
        yield
        peak = resident_peak(self.machine.daemon.pid)
        self.peaks[what] = peak
        self.task.trials += 1
        say(f"budgets: {self.name}: {what}: {peak} MiB, {time.monotonic() - begun:.0f} s")
        if peak > self.bound:
            raise Trouble(f"{what}: the daemon had {peak} MiB resident with {self.name}: more than {self.bound}")


def mebibytes(limit):
    return int(limit[:-3]) * {"MiB": 1, "GiB": 1024}[limit[-3:]]


def resident_peak(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) // KIB for line in status if line.startswith("VmHWM"))


def memory(task, sizes, chance, limit):
    """Many files, many names in one directory, their checkpoints, and a compiler beside random writes."""
    with Rig(task.part, task.seed, DIRECTORY) as rig:
        here = rig.machine("here")
        rig.init(here)
        watched = Watched(task, here, limit)
        watched.mount("--cache-size", "2GiB")
        top = here.mountpoint
        with watched.doing(f"{sizes.files} files"):
            in_threads(4, lambda n: small_files(task, top / f"small{n}", sizes.files // 4))
        with watched.doing("find"):
            count = int(shell(f"find {top} -type f -size -9k | wc -l"))
            if count != sizes.files // 4 * 4:
                raise Trouble(f"find sees {count} files of {sizes.files}")
        with watched.doing(f"a directory of {sizes.entries} entries"):
            many_entries(task, top / "many", sizes.entries)
        with watched.doing("checkpoints"):
            here.sync(timeout=HOURS)
            # 8 MiB of the log come from some 40,000 files. A quick run may stay below that.
            if not task.quick:
                wait_for(here, "a checkpoint was made")
        with watched.doing("random writes beside a compiler"):
            in_threads(5, lambda n: compile_there(task, top / "compiler", sizes) if n == 4 else
                       random_writes(task, top / f"random{n}", sizes.random_writes // 4, random.Random(chance.random())))
        with watched.doing("rm -rf"):
            shell(f"rm -rf {top}/small* {top}/many")
            task.operations += sizes.files + sizes.entries
        watched.end()
        rig.check()


def small_files(task, directory, count):
    data = os.urandom(8 * KIB)
    for n in range(count):
        if n % 1000 == 0:
            place = directory / f"{n // 1000}"
            os.makedirs(place)
        with open(place / f"{n}", "wb") as file:
            file.write(data[:n % len(data)])
    task.operations += count


def many_entries(task, directory, count):
    os.mkdir(directory)
    for n in range(count):
        os.mknod(directory / f"entry-{n}")
    if len(os.listdir(directory)) != count:
        raise Trouble("not every entry is listed")
    task.operations += count


def random_writes(task, path, count, chance):
    data = os.urandom(MIB)
    with open(path, "wb", buffering=0) as file:
        file.truncate(256 * MIB)
        for _ in range(count):
            os.pwrite(file.fileno(), data[:4 * KIB], chance.randrange(65536) * 4 * KIB)
    task.operations += count


def compile_there(task, directory, sizes):
    """Compiles programs in the mount, which creates four times as many files as there are programs."""
    os.mkdir(directory)
    for n in range(sizes.sources):
        functions = "\n".join(f"int f{k}(int x) {{ return x * {k} + {n}; }}" for k in range(300))
        (directory / f"{n}.c").write_text(functions)
        shell(f"cd {directory} && cc -O0 -g -c -save-temps {n}.c")
    task.operations += sizes.sources


def link_and_readers(task, sizes, chance, limit):
    """A long write over a slow link, and many readers over one of 100 Mbit/s. The store discards the long write, so it
    need not fit on this disk."""
    with Rig(task.part, task.seed, WEED) as rig, Faulty(int(rig.endpoint.rsplit(":", 1)[1]), task.seed) as store:
        direct, link = rig.endpoint, Link(store.address[1], sizes.link)
        rig.endpoint = f"http://127.0.0.1:{link.port}"
        with contextlib.closing(link):
            here = rig.machine("here")
            rig.init(here)
            watched = Watched(task, here, limit)
            watched.mount("--cache-size", "128MiB" if task.quick else "2GiB")
            with store.fault(FORGETS), watched.doing(
                    f"{sizes.written // MIB} MiB written on a link of {sizes.link * 8 // 10**6} Mbit/s"):
                write_long(task, here.mountpoint / "long", sizes.written)
                here.sync(timeout=HOURS)
            os.unlink(here.mountpoint / "long")
            for n in range(sizes.readers):
                (here.mountpoint / f"read{n}").write_bytes(chance.randbytes(sizes.each_reads))
            watched.end()
            there = rig.machine("there")
            link.up.rate = link.down.rate = 100 * MBIT
            watched = Watched(task, there, limit)
            watched.mount("--read-only")
            with watched.doing(f"{sizes.readers} readers at 100 Mbit/s"):
                in_threads(sizes.readers, lambda n: read_all(task, there.mountpoint / f"read{n}", sizes.each_reads))
            watched.end()
        rig.endpoint = direct
        rig.check()


def write_long(task, path, size):
    piece = os.urandom(MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(piece)
    task.operations += size // MIB


def read_all(task, path, size):
    with open(path, "rb", buffering=0) as file:
        got = 0
        while piece := file.read(128 * KIB):
            got += len(piece)
    if got != size:
        raise Trouble(f"{path.name}: {got} bytes of {size}")
    task.operations += size // (128 * KIB)


# Disk.

class DiskUse:
    """The peak size of a directory, by its parts, while it is watched."""

    def __init__(self, directory):
        self.directory, self.peak, self.parts = directory, 0, {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _watch(self):
        while not self._over.wait(0.1):
            self.look()

    def look(self):
        parts = {part.name: taken(part) for part in os.scandir(self.directory)}
        if sum(parts.values()) > self.peak:
            self.peak, self.parts = sum(parts.values()), parts

    def words(self):
        parts = ", ".join(f"{name} {size / MIB:.0f}" for name, size in sorted(self.parts.items()) if size >= MIB)
        return f"{self.peak / MIB:.0f} MiB ({parts})"


def taken(entry):
    """The bytes that it takes on the disk."""
    with contextlib.suppress(FileNotFoundError):
        if entry.is_dir(follow_symlinks=False):
            return sum(taken(below) for below in os.scandir(entry.path))
        return entry.stat(follow_symlinks=False).st_blocks * 512
    return 0


def night(task, sizes, chance, limit):
    """Changes names until the disk budget is used up, while the store is gone; then the store comes back."""
    size = 64 if task.quick else 256
    with Rig(task.part, task.seed, DIRECTORY) as rig:
        here = rig.machine("here")
        rig.init(here)
        here.mount("--cache-size", f"{size}MiB")
        top = here.mountpoint
        bucket = rig.scratch / "bucket"
        bucket.rename(rig.scratch / "gone")
        bucket.touch()
        task.faults += 1
        with DiskUse(here.state) as disk:
            changes = until_full(task, top)
            if not any(True for _ in os.scandir(top)):
                raise Trouble("nothing could be made at all")
            os.rmdir(top / "w0-0")  # what frees space still works
            bucket.unlink()
            (rig.scratch / "gone").rename(bucket)
            here.sync(timeout=10 * PATIENCE)
            resumes(top)
        task.trials += 1
        task.notes.append(f"a night without the store: {changes} changes until ENOSPC, the state directory at most "
                          f"{disk.words()} of {size} MiB")
        say(f"budgets: {task.notes[-1]}")
        here.umount()
        rig.check()
        if disk.peak > size * MIB:
            raise Trouble(f"the state directory took {disk.words()}: more than --cache-size {size}MiB")


def until_full(task, top):
    def work(worker):
        for n in range(10**9):
            try:
                new = top / f"w{worker}-{n}"
                os.mkdir(new)
                os.chmod(new, 0o700 + n % 8)
                os.rename(new, top / f"r{worker}-{n}")
                os.rename(top / f"r{worker}-{n}", new)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise Trouble(f"a change without room fails with {error}") from error
                return 4 * n
    changes = sum(in_threads(2, work))
    task.operations += changes
    return changes


def resumes(top):
    """Checks that changes are accepted again soon after everything is in the bucket."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return os.mkdir(top / "after")
        except OSError as error:
            if error.errno != errno.ENOSPC or time.monotonic() > until:
                raise Trouble(f"nothing resumes: {error}") from error
        time.sleep(0.2)


# Tools.

def in_threads(count, work):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def shell(command):
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=HOURS)
    if done.returncode != 0:
        raise Trouble(f"{command}: {done.stderr[:500]}")
    return done.stdout


def wait_for(machine, line):
    until = time.monotonic() + 10 * PATIENCE
    while line not in machine.log.read_text(errors="replace"):
        if time.monotonic() > until:
            raise Trouble(f"the log never says that {line}")
        time.sleep(0.2)
