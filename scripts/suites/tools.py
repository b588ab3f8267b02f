"""The parts of scripts/suites/tools that want a program; each raises at the first thing that is wrong.

tools.py save DIR | move DIR | many DIR PROCESSES ROUNDS | large DIR ENTRIES | count DIR ENTRIES
"""

import hashlib
import multiprocessing
import os
import random
import subprocess
import sys
import time


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def save(directory):
    """Saves as editors do: a reader of the old open file keeps reading that; opening the name yields the old or the new
    file."""
    os.chdir(directory)
    write("text", b"version 0")
    for version in range(1, 200):
        old = open("text", "rb")
        # Emacs makes a backup by renaming or by copying; others write beside the file and rename over it.
        if version % 3 == 0:
            os.rename("text", "text~")
            write("text", b"version %d" % version)
        else:
            with open(".#text", "wb") as file:
                file.write(b"version %d" % version)
                file.flush()
                os.fsync(file.fileno())
            os.rename(".#text", "text")
        assert old.read() == b"version %d" % (version - 1)
        assert os.fstat(old.fileno()).st_nlink == (1 if version % 3 == 0 else 0)
        old.close()
        assert read("text") == b"version %d" % version


def move(directory):
    """Files and directories are moved while they are open, mapped, or the working directory of a process."""
    os.chdir(directory)
    os.makedirs("from/inner")
    os.makedirs("to")
    piece = os.urandom(100_000)
    with open("from/file", "wb+") as file:
        for n in range(100):
            file.write(piece)
            here, there = ("from", "to") if n % 2 == 0 else ("to", "from")
            file.flush()
            os.rename(f"{here}/file", f"{there}/file")
            assert os.fstat(file.fileno()).st_size == len(piece) * (n + 1)
            assert os.stat(f"{there}/file").st_size == len(piece) * (n + 1)
    assert read("from/file") == piece * 100
    # A directory with an open file, and with a process in it.
    with open("from/inner/file", "wb") as file:
        file.write(b"before ")
        os.chdir("from/inner")
        os.rename("../../from", "../../to/from")
        file.write(b"after")
        file.flush()
        assert read("file") == b"before after"
        assert os.getcwd() == os.path.join(directory, "to/from/inner")
        assert sorted(os.listdir("../..")) == ["from"]
    os.chdir(directory)
    # Renamed over and unlinked while open: it exists until it is closed.
    write("victim", b"old")
    write("new", b"new")
    with open("victim", "rb+") as victim:
        os.rename("new", "victim")
        victim.seek(0, 2)
        victim.write(b" and more")
        victim.seek(0)
        assert victim.read() == b"old and more"
        assert read("victim") == b"new"
        os.unlink("victim")
        assert not os.path.exists("victim")
    for bad in ("to/from/inner", "to/from"):
        try:
            os.rename("to", bad + "/loop")
            raise AssertionError("a directory below itself")
        except OSError:
            pass


def one_of_many(directory, number, rounds, failures):
    """Creates, renames, reads and deletes in shared directories. Each file says what it must contain."""
    try:
        chance = random.Random(number)
        places = [os.path.join(directory, str(n)) for n in range(4)]
        for turn in range(rounds):
            here, there = chance.choice(places), chance.choice(places)
            name = f"{here}/{number}-{turn}"
            body = os.urandom(chance.randrange(1, 20000))
            write(name, hashlib.sha256(body).digest() + body)
            shared = f"{there}/shared-{chance.randrange(20)}"
            kind = chance.randrange(6)
            try:
                if kind == 0:
                    os.rename(name, shared)
                elif kind == 1:
                    os.unlink(shared)
                elif kind == 2:
                    os.link(name, shared)
                elif kind == 3:
                    os.rename(shared, f"{here}/shared-{chance.randrange(20)}")
                elif kind == 4:
                    os.mkdir(f"{there}/dir-{chance.randrange(5)}")
                    os.rmdir(f"{there}/dir-{chance.randrange(5)}")
                else:
                    os.listdir(there)
            except (FileNotFoundError, FileExistsError):
                pass
            try:
                data = read(shared)
                assert hashlib.sha256(data[32:]).digest() == data[:32], f"{shared}: {len(data)} bytes"
            except FileNotFoundError:
                pass
            if kind != 0 and chance.randrange(2):
                os.unlink(name)
            elif kind != 0:
                data = read(name)
                assert data[32:] == body, name
    except BaseException as error:
        failures.put(f"process {number}: {error!r}")
        raise


def many(directory, processes, rounds):
    for n in range(4):
        os.makedirs(f"{directory}/{n}")
    failures = multiprocessing.Queue()
    begun = time.monotonic()
    workers = [multiprocessing.Process(target=one_of_many, args=(directory, n, int(rounds), failures))
               for n in range(int(processes))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - begun
    assert all(worker.exitcode == 0 for worker in workers), failures.get(timeout=5)
    links = {}
    for n in range(4):
        for entry in os.scandir(f"{directory}/{n}"):
            if entry.is_file():
                data = read(entry.path)
                assert hashlib.sha256(data[32:]).digest() == data[:32], entry.path
                links.setdefault(entry.inode(), []).append(os.stat(entry.path).st_nlink)
    for inode, counts in links.items():
        assert all(count == len(counts) for count in counts), (inode, counts)
    print(f"{processes} processes x {rounds} rounds in {seconds:.0f} s")


def large(directory, entries):
    """Makes a large directory, lists it, and lists it while other entries come and go: entries that stay are listed
    exactly once."""
    entries = int(entries)
    os.mkdir(directory)
    stable = {f"entry number {n}" for n in range(entries)}
    begun = time.monotonic()
    for name in stable:
        os.close(os.open(f"{directory}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    made = time.monotonic() - begun
    begun = time.monotonic()
    listed = subprocess.run(["ls", "-f", directory], capture_output=True, check=True).stdout.count(b"\n") - 2
    names = time.monotonic() - begun
    assert listed == entries, listed
    begun = time.monotonic()
    subprocess.run(["ls", "-l", directory], stdout=subprocess.DEVNULL, check=True)
    long = time.monotonic() - begun
    stop = multiprocessing.Event()
    changes = multiprocessing.Value("q", 0)
    changers = [multiprocessing.Process(target=change, args=(directory, n, stop, changes)) for n in range(2)]
    for changer in changers:
        changer.start()
    try:
        for _ in range(5):
            seen = [entry.name for entry in os.scandir(directory)]
            kept = [name for name in seen if not name.startswith("transient")]
            assert len(kept) == len(set(kept)), "an entry is listed twice"
            assert set(kept) == stable, "an entry is missing"
    finally:
        stop.set()
        for changer in changers:
            changer.join()
    assert all(changer.exitcode == 0 for changer in changers)
    assert changes.value > 100, changes.value
    print(f"{entries} entries made in {made:.0f} s, ls -f {names:.1f} s, ls -l {long:.1f} s, "
          f"stable while {changes.value} others changed")


def change(directory, number, stop, changes):
    n = 0
    while not stop.is_set():
        n += 1
        path = f"{directory}/transient-{number}-{n}"
        write(path, b"")
        if n % 3 == 0:
            os.rename(path, path + "-renamed")
            path += "-renamed"
        if n % 5:
            os.unlink(path)
        with changes.get_lock():
            changes.value += 1


def count(directory, entries):
    stable = sum(not entry.name.startswith("transient") for entry in os.scandir(directory))
    assert stable == int(entries), stable


if __name__ == "__main__":
    {"save": save, "move": move, "many": many, "large": large, "count": count}[sys.argv[1]](*sys.argv[2:])
