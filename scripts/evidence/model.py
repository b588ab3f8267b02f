"""What a mount must show after it was ended by force: threads that change files, and a model of what they did.

A `Worker` has a directory of its own and does one thing after the other. Its `history` is the list of its steps. By
PROTOCOL (J1, V1) a reopening shows the state after *a prefix of that list*: after a SIGKILL all of it, perhaps with
the step that was under way; after a loss of power at least up to the last `fsync`; from the bucket alone at least up
to the last `sync`. Within such a state, a file that was written and not closed yet shows one of the states that it
had since it was last published: a whole one, never a mixture. `Worker.judge` finds the prefix, or raises `Lost`.

    workers = Workers(seed, count=4)
    workers.begin(machine.mountpoint)            they change things until the mount dies, or `pause`
    machine.kill()
    workers.rest()                               each has noticed
    machine.mount()
    workers.after_kill(machine.mountpoint)       judges, and goes on from what is there
    workers.begin(machine.mountpoint)
    workers.rest(); machine.sync(); workers.synced()
    workers.judge(there.mountpoint, Worker.in_bucket)     a mount from the bucket alone
"""

import errno
import os
import random
import threading
import time

from rig import PATIENCE, Trouble
from tree import Tree, look, nodes

DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV}
# The errors that a call may fail with: after a fault of the local disk; while staging is full; when the store is away
# for 30 s.
FAULTY, FULL, AWAY = {errno.EIO, errno.ENOSPC, errno.EROFS}, {errno.ENOSPC}, {errno.EIO, errno.ENOSPC}
WRITE_MAX = 128 << 10
# The most unpublished states of a file: each is kept for the comparison.
UNPUBLISHED_MAX = 12
FILES = 40
HANDLES = 4


class Lost(Trouble):
    """What is in the mount is not what a reopening may show."""


class Worker(threading.Thread):
    """Changes the files of its own directory, one thing after the other, until the mount dies or it is told to rest."""

    def __init__(self, number, seed):
        super().__init__(daemon=True, name=f"w{number}")
        self.random = random.Random(f"{seed}/{number}")
        self.tree = Tree()
        self.root = None
        # `base` is a state that is in the bucket; `history` is what came since.
        self.base, self.history = Tree(), []
        self.durable = 0
        self.under_way = None
        self.descriptors = {}
        self.operations = 0
        self.trouble = None
        # False once the disk below is about to go: whatever fails from then on is expected.
        self.power = True
        self.errors = ()
        self._go, self._rest, self._resting, self._over = (threading.Event() for _ in range(4))
        self._resting.set()
        self.start()

    # What a driver says.

    def begin(self, mountpoint, errors=()):
        """A call may fail with one of `errors`; then this worker rests. What failed has not happened."""
        self.root, self.power = os.path.join(mountpoint, self.name), True
        self.errors = errors
        self._rest.clear()
        self._resting.clear()
        self._go.set()

    def ask_to_rest(self):
        self._rest.set()

    def wait_for_rest(self):
        if not self._resting.wait(PATIENCE):
            raise Trouble(f"{self.name} hangs in {step_name(self.under_way)}")
        if self.trouble:
            raise self.trouble

    def end(self):
        self._over.set()
        self._rest.set()
        self._go.set()

    def forget_descriptors(self):
        for descriptor in self.descriptors.values():
            try:
                os.close(descriptor)
            except OSError:
                pass
        self.descriptors.clear()

    # What a reopening may show: at least this many steps from the beginning.

    def in_journal(self):
        return len(self.history)

    def fsynced(self):
        return self.durable

    def in_bucket(self):
        return 0

    def judge(self, mountpoint, at_least, may_fail=False):
        """Returns which prefix of the history is there, of at least `at_least` steps (a number, or `Worker.fsynced`
        ...). If files `may_fail`, one that cannot be read (EIO) may have any content."""
        at_least = at_least if isinstance(at_least, int) else at_least(self)
        try:
            found, differences = look(os.path.join(mountpoint, self.name), may_fail), []
        except OSError as error:
            raise Lost(f"{self.name}: {error}") from error
        steps = self.history + ([self.under_way] if self.under_way else [])
        # After a kill nearly everything is there, so replaying it all can be avoided.
        near = at_least >= len(self.history)
        tree, done = (self.tree.copy(), len(self.history)) if near else (self.base.copy(), 0)
        while True:
            if done >= at_least:
                differences.append(tree.difference(found))
                if differences[-1] is None:
                    return done, found
            if done == len(steps):
                break
            tree.apply(steps[done])
            done += 1
        last = [step_name(step) for step in steps[-8:]]
        raise Lost(f"{self.name}: none of the {len(differences)} states that may be there is; the last steps: {last}; the "
                   f"oldest state: {differences[0]}; the newest: {differences[-1]}")

    def reopened(self, mountpoint, at_least):
        """Judges, and goes on from what was found."""
        done, found = self.judge(mountpoint, at_least)
        self.forget_descriptors()
        # What is lost must not come back.
        del self.history[done:]
        self.under_way = None
        step = ("reopened", nodes(found))
        self.history.append(step)
        self.tree.apply(step)

    def published(self):
        """Notes that everything written is published (by `sync`, or by an end that everybody waited for)."""
        self.history.append(("publish_all",))
        self.tree.publish_all()

    def synced(self):
        """Notes that the bucket has everything; called while the worker rests."""
        self.published()
        self.base, self.history, self.durable = self.tree.copy(), [], 0

    # What it does.

    def run(self):
        while True:
            self._go.wait()
            self._go.clear()
            if self._over.is_set():
                return
            try:
                self.work()
            except OSError as error:
                if error.errno in DEAD or dead(self.root) or not self.power:
                    pass  # it may or may not have happened
                elif error.errno in self.errors:
                    self.refused()
                else:
                    self.trouble = Lost(f"{self.name}: {step_name(self.under_way)} failed: {error}")
            except Exception as error:  # reported to the driver's thread
                self.trouble = error
            self._resting.set()

    def refused(self):
        """The step under way failed: it has not happened and will not. A write may have happened in part."""
        if self.under_way and self.under_way[0] != "write":
            self.under_way = None

    def work(self):
        os.makedirs(self.root, exist_ok=True)
        while not self._rest.is_set():
            self.one_thing()

    def do(self, step, call):
        """Does one step: it is under way while `call` runs, and in the history once that has returned."""
        self.under_way = step
        result = call()
        self.tree.apply(step)
        self.history.append(step)
        self.under_way = None
        self.operations += 1
        return result

    def at(self, path):
        return os.path.join(self.root, path)

    def one_thing(self):
        chances = {self.make_file: 5, self.write: 8, self.append: 4, self.truncate: 2, self.sync_file: 2, self.close: 5,
                   self.save: 4, self.rename: 4, self.unlink: 3, self.mkdir: 2, self.rmdir: 1, self.link: 2, self.copy_in: 0.3}
        if len(self.tree.paths) > FILES:
            chances |= {self.unlink: 20, self.rmdir: 10}
        self.random.choices(list(chances), chances.values())[0]()

    def some(self, paths):
        return self.random.choice(sorted(paths)) if paths else None

    def new_path(self):
        parent = self.some([""] + [path + "/" for path in self.tree.directories() if path.count("/") < 2])
        return f"{parent}{self.random.randrange(1000):03}"

    def bytes(self, most):
        """Mostly few bytes."""
        return self.random.randbytes(int(most ** self.random.random()))

    def open(self, path, truncate=False, flags=os.O_CREAT):
        handle = self.random.randrange(1 << 48)
        flags |= os.O_RDWR | os.O_CLOEXEC | (os.O_TRUNC if truncate else 0)
        self.descriptors[handle] = self.do(("open", handle, path, truncate), lambda: os.open(self.at(path), flags, 0o644))
        return handle

    def write_at(self, handle, offset, data):
        descriptor = self.descriptors[handle]

        def call():
            written = os.pwrite(descriptor, data, offset)
            if written < len(data):
                raise OSError(errno.EIO, f"{written} B of {len(data)} were taken")
        self.do(("write", handle, offset, data), call)

    def close_it(self, handle):
        descriptor = self.descriptors.pop(handle)
        self.do(("close", handle), lambda: os.close(descriptor))

    def sync_it(self, handle):
        descriptor = self.descriptors[handle]
        self.do(("fsync", handle), lambda: os.fsync(descriptor))
        self.durable = len(self.history)

    def an_open_one(self):
        if len(self.descriptors) < HANDLES and self.random.random() < 0.5:
            path = self.some(self.tree.files())
            if path:
                return self.open(path, truncate=self.random.random() < 0.2)
        return self.some(list(self.descriptors))

    def make_file(self):
        path = self.new_path()
        if path not in self.tree.paths:
            handle = self.open(path, flags=os.O_CREAT | os.O_EXCL)
            self.write_at(handle, 0, self.bytes(WRITE_MAX) or b"x")
            if len(self.descriptors) >= HANDLES or self.random.random() < 0.7:
                self.close_it(handle)

    def write(self):
        handle = self.an_open_one()
        if handle is None:
            return
        states = self.tree.handles[handle].states
        if len(states) >= UNPUBLISHED_MAX:
            return self.sync_it(handle)
        self.write_at(handle, self.random.randrange(len(states[-1]) + 5000), self.bytes(WRITE_MAX) or b"x")

    def append(self):
        handle = self.an_open_one()
        if handle is None:
            return
        states = self.tree.handles[handle].states
        if len(states) < UNPUBLISHED_MAX and len(states[-1]) < 1 << 20:
            self.write_at(handle, len(states[-1]), self.bytes(4096) or b"x")

    def truncate(self):
        handle = self.an_open_one()
        if handle is not None:
            size = self.random.randrange(len(self.tree.handles[handle].states[-1]) + 10_000)
            descriptor = self.descriptors[handle]
            self.do(("truncate", handle, size), lambda: os.ftruncate(descriptor, size))

    def sync_file(self):
        handle = self.an_open_one()
        if handle is not None:
            self.sync_it(handle)

    def close(self):
        handle = self.some(list(self.descriptors))
        if handle is not None:
            self.close_it(handle)

    def save(self):
        """Saves as editors do: writes beside the file, then renames over it."""
        path = self.some(self.tree.files())
        if path and path + "~" not in self.tree.paths:
            handle = self.open(path + "~", flags=os.O_CREAT | os.O_EXCL)
            self.write_at(handle, 0, self.bytes(WRITE_MAX) or b"x")
            if self.random.random() < 0.5:
                self.sync_it(handle)
            if self.random.random() < 0.8:
                self.close_it(handle)
            self.do(("rename", path + "~", path), lambda: os.rename(self.at(path + "~"), self.at(path)))

    def copy_in(self):
        """Writes a file of more than 1 MiB, which has a pack of its own."""
        path = self.new_path()
        if path not in self.tree.paths:
            handle = self.open(path, flags=os.O_CREAT | os.O_EXCL)
            for piece in range(self.random.randrange(9, UNPUBLISHED_MAX)):
                self.write_at(handle, piece * WRITE_MAX, self.random.randbytes(WRITE_MAX))
            self.close_it(handle)

    def rename(self):
        old = self.some(self.tree.paths)
        if not old:
            return
        of_file = self.tree.paths[old] is not None
        new = self.some(self.tree.files()) if of_file and self.random.random() < 0.5 else self.new_path()
        if new != old and not new.startswith(old + "/") and (new not in self.tree.paths or of_file and self.tree.paths[new]):
            self.do(("rename", old, new), lambda: os.rename(self.at(old), self.at(new)))

    def unlink(self):
        path = self.some(self.tree.files())
        if path:
            self.do(("remove", path), lambda: os.unlink(self.at(path)))

    def mkdir(self):
        path = self.new_path()
        if path not in self.tree.paths:
            self.do(("mkdir", path), lambda: os.mkdir(self.at(path)))

    def rmdir(self):
        path = self.some([path for path in self.tree.directories() if self.tree.is_empty(path)])
        if path:
            self.do(("remove", path), lambda: os.rmdir(self.at(path)))

    def link(self):
        old, new = self.some(self.tree.files()), self.new_path()
        if old and new not in self.tree.paths:
            self.do(("link", old, new), lambda: os.link(self.at(old), self.at(new)))


class Workers:
    """All workers as one."""

    def __init__(self, seed, count=4, kind=Worker):
        self.all = [kind(number, seed) for number in range(count)]

    @property
    def operations(self):
        return sum(worker.operations for worker in self.all)

    def begin(self, mountpoint, errors=()):
        for worker in self.all:
            worker.begin(mountpoint, errors)

    def ask_to_rest(self):
        for worker in self.all:
            worker.ask_to_rest()

    def begin_for(self, mountpoint, seconds):
        self.begin(mountpoint)
        time.sleep(seconds)
        self.rest()

    def rest(self):
        """Returns when all workers have stopped, because they were asked to or because the mount died."""
        self.ask_to_rest()
        for worker in self.all:
            worker.wait_for_rest()

    def power_off(self):
        """Called before the disk goes."""
        for worker in self.all:
            worker.power = False

    def after_kill(self, mountpoint, at_least=Worker.in_journal):
        for worker in self.all:
            worker.reopened(mountpoint, at_least)

    def judge(self, mountpoint, at_least, may_fail=False):
        """Only compares; returns how many workers lack something that was done before a kill."""
        lacking = 0
        for worker in self.all:
            try:
                worker.judge(mountpoint, Worker.in_journal, may_fail)
            except Lost:
                if at_least is Worker.in_journal:
                    raise
                worker.judge(mountpoint, at_least, may_fail)
                lacking += 1
        return lacking

    def found(self, mountpoint):
        """What is there, readable or not: contents, and which names belong to one file, without inode numbers."""
        found = {worker.name: look(os.path.join(mountpoint, worker.name), may_fail=True) for worker in self.all}
        return {name: {path: (content, sorted(each for each in tree if tree[each][0] == inode))
                       for path, (inode, content) in tree.items()} for name, tree in found.items()}

    def forget_descriptors(self):
        for worker in self.all:
            worker.forget_descriptors()

    def synced(self):
        for worker in self.all:
            worker.synced()

    def close_files(self):
        """Closes files before an unmount, which is refused while files are open."""
        for worker in self.all:
            for handle in list(worker.descriptors):
                worker.close_it(handle)

    def end(self):
        for worker in self.all:
            worker.end()
            worker.forget_descriptors()


def dead(root):
    """Whether the mount that contains this path is dead."""
    try:
        os.statvfs(os.path.dirname(root))
    except OSError as error:
        return error.errno in DEAD
    return False


def step_name(step):
    """A step as text; of its bytes only the number."""
    if step is None:
        return "nothing"
    words = [f"<{len(word)} B>" if isinstance(word, bytes) else word for word in step if not isinstance(word, dict)]
    return " ".join(map(str, words))
