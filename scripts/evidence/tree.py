"""The expected content of a directory: steps applied to paths in memory, and the comparison with what is found."""

import copy
import errno
import os
import zlib

PAGE = 4096
# The content of a file that cannot be read, where that is allowed.
UNREADABLE = "EIO"


class File:
    """A file's content: the published state, and each state since, one more than there are `writes`."""

    def __init__(self, content=b""):
        self.states, self.writes = [content], []

    def write(self, offset, data):
        self.states.append(overwritten(self.states[-1], offset, data))
        self.writes.append((offset, data))

    def resize(self, size):
        last = self.states[-1]
        self.states, self.writes = [last[:size].ljust(size, b"\0")], []

    def publish(self):
        self.states, self.writes = [self.states[-1]], []

    def may_show(self, content):
        return content is UNREADABLE or content in self.states or any(
            content == overwritten(before, offset, data[:cut])
            for before, (offset, data) in zip(self.states, self.writes) for cut in cuts(offset, data))


def overwritten(content, offset, data):
    content = content.ljust(offset, b"\0")
    return content[:offset] + data + content[offset + len(data):]


def cuts(offset, data):
    """Where the kernel may end one request and begin the next: between pages. A write that begins within a page that
    the kernel does not have arrives in two parts."""
    return range(PAGE - offset % PAGE, len(data), PAGE)


class Tree:
    """Paths below a worker's directory: None is a directory; a File under two paths is linked twice."""

    def __init__(self):
        self.paths = {}
        self.handles = {}

    def copy(self):
        return copy.deepcopy(self)

    def apply(self, step):
        """Applies one step; its name is that of a method below."""
        getattr(self, step[0])(*step[1:])

    def mkdir(self, path):
        self.paths[path] = None

    def remove(self, path):
        del self.paths[path]

    def link(self, old, new):
        self.paths[old].publish()
        self.paths[new] = self.paths[old]

    def rename(self, old, new):
        moved = {path: node for path, node in self.paths.items() if path == old or path.startswith(old + "/")}
        target = self.paths.get(new)
        if target is not None and target is self.paths[old]:
            return  # two names of one file: POSIX does nothing
        for path in moved:
            del self.paths[path]
        for path, node in moved.items():
            self.paths[new + path[len(old):]] = node
        if isinstance(self.paths[new], File):
            self.paths[new].publish()

    def open(self, handle, path, truncate):
        node = self.paths.setdefault(path, File())
        if truncate:
            node.resize(0)
        self.handles[handle] = node

    def write(self, handle, offset, data):
        self.handles[handle].write(offset, data)

    def truncate(self, handle, size):
        self.handles[handle].resize(size)

    def fsync(self, handle):
        self.handles[handle].publish()

    def close(self, handle):
        self.handles.pop(handle).publish()

    def publish_all(self):
        for file in self.handles.values():
            file.publish()

    def reopened(self, paths):
        """The daemon died, and this is what the next mount found."""
        self.paths, self.handles = copy.deepcopy(paths), {}

    def files(self):
        return [path for path, node in self.paths.items() if node is not None]

    def directories(self):
        return [path for path, node in self.paths.items() if node is None]

    def is_empty(self, path):
        return not any(each.startswith(path + "/") for each in self.paths)

    def difference(self, found):
        """Why `found` (see `look`) is not this tree; None if it is."""
        if self.paths.keys() != found.keys():
            missing, extra = sorted(self.paths.keys() - found.keys()), sorted(found.keys() - self.paths.keys())
            return f"missing: {missing}, unexpected: {extra}"
        inode_of = {}
        for path, node in self.paths.items():
            inode, content = found[path]
            if (node is None) != (content is None):
                return f"{path}: expected a {'directory' if node is None else 'file'}"
            if node is None:
                continue
            if not node.may_show(content):
                return f"{path}: expected one of {[brief(state) for state in node.states]}, found {brief(content)}, " \
                       f"first different at {[first_difference(state, content) for state in node.states]}"
            if inode_of.setdefault(id(node), inode) != inode:
                return f"{path}: not linked to the file that it was linked to"
        if len(set(inode_of.values())) != len(inode_of):
            return "two files have become one"
        return None


def look(root, may_fail=False):
    """What is below a directory: path -> (inode, content; None for a directory)."""

    def read(file):
        try:
            return file.read()
        except OSError as error:
            if may_fail and error.errno == errno.EIO:
                return UNREADABLE
            raise
    found = {}
    try:
        os.lstat(root)
    except FileNotFoundError:
        return found

    def walk(directory, prefix):
        for entry in os.scandir(directory):
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                found[path] = (entry.inode(), None)
                walk(entry.path, path + "/")
            else:
                with open(entry.path, "rb") as file:
                    found[path] = (os.fstat(file.fileno()).st_ino, read(file))
    walk(root, "")
    return found


def nodes(found):
    """Files and directories as they were found, for the model to go on from."""
    file_of, paths = {}, {}
    for path, (inode, content) in found.items():
        paths[path] = None
        if content is not None:
            paths[path] = file_of.setdefault(inode, File(content))
    return paths


def brief(content):
    return f"{len(content)} B, CRC {zlib.crc32(content):08x}"


def first_difference(a, b):
    shorter = min(len(a), len(b))
    return next((at for at in range(shorter) if a[at] != b[at]), shorter)
