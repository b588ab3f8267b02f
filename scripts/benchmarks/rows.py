"""What is measured of each file system. A row is a name, a unit, and which direction is better; `measure` returns the
figures."""

import ctypes
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import threading
import time

MIB = 1 << 20
SMALL = 4096
PUNCH, ZERO = 3, 0x10
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]

MORE, LESS, COUNT = "more is better", "less is better", "a count"
# name: (unit, which direction is better)
ROWS = {
    "write one large file, until in the bucket": ("MB/s", MORE),
    "read it cold": ("MB/s", MORE),
    "CPU of that": ("s/GiB", LESS),
    "read it again from this disk": ("MB/s", MORE),
    "4 KiB files in, to close": ("files/s", MORE),
    "the same, until in the bucket": ("files/s", MORE),
    "requests of that": ("", COUNT),
    "out cold, in order": ("files/s", MORE),
    "requests of that, cold": ("", COUNT),
    "out cold, random": ("files/s", MORE),
    "find -ls": ("entries/s", MORE),
    "rm -rf, until in the bucket": ("files/s", MORE),
    "untar": ("files/s", MORE),
    "create + write + fsync + close": ("1/s", MORE),
    "SQLite transactions": ("1/s", MORE),
    "write + ZERO_RANGE": ("1/s", MORE),
    "write + PUNCH_HOLE": ("1/s", MORE),
    "write + copy_file_range": ("1/s", MORE),
    "4 KiB cold random read, median": ("ms", LESS),
    "the same, 16 readers": ("1/s", MORE),
    "one small change until in the bucket": ("ms", LESS),
    "mount with nothing on this disk": ("s", LESS),
    "bytes up / down in all": ("MB", COUNT),
    "CPU in all": ("s", LESS),
    "peak RSS": ("MiB", LESS),
}


class Sizes:
    """How much is measured, and the source files, which are made once."""

    def __init__(self, scratch, mib, files, seconds):
        self.bytes, self.files, self.seconds = mib * MIB, files, seconds
        self.large, self.tree, self.tar = (os.path.join(scratch, name) for name in ("large", "tree", "tree.tar"))
        with open(self.large, "wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        os.mkdir(self.tree)
        for n in range(files):
            with open(os.path.join(self.tree, f"file-{n}"), "wb") as file:
                file.write(os.urandom(SMALL))
        subprocess.run(["tar", "-cf", self.tar, "-C", scratch, "tree"], check=True)


def timed(work):
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def rate(seconds, step):
    """How often `step(n)` runs per second."""
    begun, n = time.monotonic(), 0
    while (took := time.monotonic() - begun) < seconds:
        step(n)
        n += 1
    return n / took


def read_all(path):
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(MIB)
        while file.readinto(buffer):
            pass


class Measuring:
    """Measures one file system from its creation to its end; `link` counts requests, if there is one."""

    def __init__(self, system, sizes, link):
        self.system, self.sizes, self.link = system, sizes, link
        self.figures, self.cpu, self.peak = {}, 0.0, 0
        self.bytes = [0, 0]

    def measure(self):
        self.system.start()
        try:
            for part in (self.large, self.small, self.calls, self.cold_reads, self.changes):
                try:
                    part()
                except Exception as error:  # a rival that cannot do it has no figure, and the others go on
                    print(f"{self.system.name}: {part.__name__}: {error}", flush=True)
            self.note_usage()
        finally:
            self.system.stop()
        self.figures |= {"CPU in all": self.cpu, "peak RSS": self.peak}
        if self.link:
            self.requests()
            self.figures["bytes up / down in all"] = "{:.0f} / {:.0f}".format(*(count / 1e6 for count in self.bytes))
        return self.figures

    def at(self, name):
        return os.path.join(self.system.path, name)

    def note_usage(self):
        cpu, peak = self.system.usage()
        self.cpu, self.peak = self.cpu + cpu, max(self.peak, peak)

    def again(self, warm=False):
        """Mounts anew, and keeps the figures of the old process."""
        self.note_usage()
        self.system.warm() if warm else self.system.cold()

    def requests(self):
        """The requests and bytes since the last call, as text."""
        if not self.link:
            return None
        counts, moved = self.link.take()
        self.bytes = [self.bytes[0] + moved.get("up", 0), self.bytes[1] + moved.get("down", 0)]
        return ", ".join(f"{count} {method}" for method, count in sorted(counts.items(), key=lambda each: -each[1])) or "none"

    def large(self):
        def write():
            shutil.copyfile(self.sizes.large, self.at("large"))
            self.system.until_in_bucket()
        self.figures["write one large file, until in the bucket"] = self.sizes.bytes / 1e6 / timed(write)
        self.again()
        before = self.system.usage()[0]
        self.figures["read it cold"] = self.sizes.bytes / 1e6 / timed(lambda: read_all(self.at("large")))
        self.figures["CPU of that"] = (self.system.usage()[0] - before) / (self.sizes.bytes / 2**30)
        self.again(warm=True)
        self.figures["read it again from this disk"] = self.sizes.bytes / 1e6 / timed(lambda: read_all(self.at("large")))

    def small(self):
        files, path = self.sizes.files, self.at("small")
        names = [f"file-{n}" for n in range(files)]
        self.requests()

        def put():
            os.mkdir(path)
            for name in names:
                with open(os.path.join(self.sizes.tree, name), "rb") as source, open(os.path.join(path, name), "wb") as target:
                    target.write(source.read())
        closed = timed(put)
        there = closed + timed(self.system.until_in_bucket)
        self.figures |= {"4 KiB files in, to close": files / closed, "the same, until in the bucket": files / there,
                         "requests of that": self.requests()}
        self.again()
        self.requests()
        self.figures["out cold, in order"] = files / timed(lambda: [read_all(os.path.join(path, name)) for name in names])
        self.figures["requests of that, cold"] = self.requests()
        self.again()
        random.Random(7).shuffle(names)
        self.figures["out cold, random"] = files / timed(lambda: [read_all(os.path.join(path, name)) for name in names])
        find = timed(lambda: subprocess.run(["find", path, "-ls"], stdout=subprocess.DEVNULL, check=True))
        self.figures["find -ls"] = files / find
        def remove():
            shutil.rmtree(path)
            self.system.until_in_bucket()
        self.figures["rm -rf, until in the bucket"] = files / timed(remove)
        self.figures["untar"] = files / timed(lambda: subprocess.run(["tar", "-xf", self.sizes.tar, "-C", self.system.path], check=True))

    def calls(self):
        seconds, data = self.sizes.seconds, os.urandom(SMALL)

        def create(n):
            with open(self.at(f"synced-{n}"), "wb", buffering=0) as file:
                file.write(data)
                os.fsync(file.fileno())
        self.figures["create + write + fsync + close"] = rate(seconds, create)
        database = sqlite3.connect(self.at("database"), isolation_level=None)
        database.execute("CREATE TABLE t (a INTEGER, b BLOB)")
        self.figures["SQLite transactions"] = rate(seconds, lambda n: database.execute("INSERT INTO t VALUES (?, ?)", (n, data[:100])))
        database.close()
        for name, call in (("ZERO_RANGE", lambda fd, at: fallocate(fd, ZERO, at)), ("PUNCH_HOLE", lambda fd, at: fallocate(fd, PUNCH, at)),
                           ("copy_file_range", lambda fd, at: os.copy_file_range(fd, fd, SMALL, at, at + (1 << 30)))):
            fd = os.open(self.at(name), os.O_RDWR | os.O_CREAT)
            def step(n, fd=fd, call=call):
                os.pwrite(fd, data, n * SMALL)
                call(fd, n * SMALL)
            try:
                self.figures[f"write + {name}"] = rate(seconds, step)
            except OSError:
                pass  # it has no such call
            os.close(fd)

    def cold_reads(self):
        self.again()
        picks = [n * SMALL for n in random.Random(8).sample(range(self.sizes.bytes // SMALL), 240)]
        # Not with a buffered read, for which the kernel would fetch neighbouring pages, too.
        fd = os.open(self.at("large"), os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        times = [timed(lambda at=at: os.pread(fd, SMALL, at)) for at in picks[:80]]
        self.figures["4 KiB cold random read, median"] = statistics.median(times) * 1000
        threads = [threading.Thread(target=lambda part=picks[80 + n::16]: [os.pread(fd, SMALL, at) for at in part]) for n in range(16)]
        def readers():
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        self.figures["the same, 16 readers"] = 160 / timed(readers)
        os.close(fd)

    def changes(self):
        self.system.until_in_bucket()
        def change(n):
            with open(self.at(f"change-{n}"), "w") as file:
                file.write("x")
            self.system.until_in_bucket()
        self.figures["one small change until in the bucket"] = statistics.median(timed(lambda n=n: change(n)) for n in range(7)) * 1000
        self.note_usage()
        self.figures["mount with nothing on this disk"] = timed(self.system.cold)


def fallocate(fd, mode, at):
    if LIBC.fallocate(fd, mode, at, SMALL):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
