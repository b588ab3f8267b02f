"""An NFS client for scripts/suites/nfs, based on libnfs: each call is a request to the server, and no kernel caches
anything.

    nfs.py VERSION EXPORT put|compare SOURCE TREE      writes a tree, or compares one with its source
    nfs.py VERSION EXPORT rename|unlink|remove ...     a name, a file, a tree
    nfs.py VERSION EXPORT keep SOURCE TREE ASK ANSWER  keeps handles of all files, and takes requests from a FIFO
"""

import ctypes
import glob
import os
import stat
import sys

LIB = ctypes.CDLL(glob.glob("/usr/lib/*/libnfs.so.1?")[0])
PIECE = 1 << 17


class Stat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks", "atime", "mtime", "ctime",
        "atime_nsec", "mtime_nsec", "ctime_nsec", "used")]


class Entry(ctypes.Structure):
    """The beginning of a `struct nfsdirent`."""
    _fields_ = [("next", ctypes.c_void_p), ("name", ctypes.c_char_p)]


class Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("micros", ctypes.c_long)]


for function in ("nfs_init_context", "nfs_parse_url_incomplete", "nfs_get_error", "nfs_readdir"):
    getattr(LIB, function).restype = ctypes.c_void_p
LIB.nfs_get_error.restype = ctypes.c_char_p
LIB.nfs_readdir.restype = ctypes.POINTER(Entry)


class Refused(Exception):
    pass


class Share:
    def __init__(self, version, export):
        self.context = ctypes.c_void_p(LIB.nfs_init_context())
        url = f"nfs://127.0.0.1/?version={version}&nfsport=2049&mountport=2050"
        assert LIB.nfs_parse_url_incomplete(self.context, url.encode())
        self.do("mount", b"127.0.0.1", export.encode())

    def do(self, name, *words):
        """A call whose result is negative if it fails."""
        status = getattr(LIB, "nfs_" + name)(self.context, *words)
        if status < 0:
            raise Refused(f"{name} {words[:2]}: {status}: {LIB.nfs_get_error(self.context)}")
        return status

    def open(self, path, flags):
        handle = ctypes.c_void_p()
        self.do("open", path, flags, ctypes.byref(handle))
        return handle

    def read(self, handle):
        """Reads all of it, from the first byte on."""
        buffer, pieces, at = ctypes.create_string_buffer(PIECE), [], 0
        while True:
            count = self.do("pread", handle, ctypes.c_uint64(at), ctypes.c_uint64(PIECE), buffer)
            if count == 0:
                return b"".join(pieces)
            pieces.append(buffer.raw[:count])
            at += count

    def write(self, handle, data, at=0):
        end = at + len(data)
        while at < end:
            piece = data[len(data) - (end - at):][:PIECE]
            at += self.do("pwrite", handle, ctypes.c_uint64(at), ctypes.c_uint64(len(piece)), piece)

    def list(self, path):
        directory, names = ctypes.c_void_p(), []
        self.do("opendir", path, ctypes.byref(directory))
        while entry := LIB.nfs_readdir(self.context, directory):
            names.append(entry.contents.name)
        LIB.nfs_closedir(self.context, directory)
        return sorted(set(names) - {b".", b".."})

    def stat(self, path):
        found = Stat()
        self.do("lstat64", path, ctypes.byref(found))
        return found

    def readlink(self, path):
        buffer = ctypes.create_string_buffer(5000)
        self.do("readlink", path, buffer, len(buffer))
        return buffer.value


def put(share, source, target, links):
    """Copies like `cp -a`. Over NFS 3, since libnfs 4 cannot write over NFS 4."""
    meta = os.lstat(source)
    if stat.S_ISDIR(meta.st_mode):
        share.do("mkdir", target)
        for name in sorted(os.listdir(source)):
            put(share, os.path.join(source, name), os.path.join(target, name), links)
    elif stat.S_ISLNK(meta.st_mode):
        share.do("symlink", os.readlink(source), target)
    elif meta.st_ino in links:
        share.do("link", links[meta.st_ino], target)
    else:
        if meta.st_nlink > 1:
            links[meta.st_ino] = target
        handle = ctypes.c_void_p()
        share.do("creat", target, 0o600, ctypes.byref(handle))
        share.write(handle, content(source))
        share.do("fsync", handle)
        share.do("close", handle)
    # libnfs 4 cannot change symbolic links.
    if not stat.S_ISLNK(meta.st_mode):
        share.do("chown", target, meta.st_uid, meta.st_gid)
        share.do("chmod", target, meta.st_mode & 0o7777)
        time = Time(meta.st_mtime_ns // 10**9, meta.st_mtime_ns % 10**9 // 1000)
        share.do("utimes", target, (Time * 2)(time, time))


def compare(share, source, target):
    meta, found = os.lstat(source), share.stat(target)
    kind = stat.S_IFMT(meta.st_mode)
    expected = (meta.st_mode, meta.st_uid, meta.st_gid, meta.st_mtime_ns)
    got = (found.mode, found.uid, found.gid, found.mtime * 10**9 + found.mtime_nsec)
    last = 3 if kind == stat.S_IFLNK else 4
    assert got[:last] == expected[:last], f"{target}: {got}, not {expected}"
    if kind == stat.S_IFDIR:
        names = sorted(os.listdir(source))
        assert share.list(target) == names, target
        for name in names:
            compare(share, os.path.join(source, name), os.path.join(target, name))
    elif kind == stat.S_IFLNK:
        assert share.readlink(target) == os.readlink(source), target
    else:
        assert (found.nlink, found.size) == (meta.st_nlink, meta.st_size), target
        handle = share.open(target, os.O_RDONLY)
        assert share.read(handle) == content(source), f"{target} has other content"
        share.do("close", handle)


def remove(share, path):
    if not stat.S_ISDIR(share.stat(path).mode):
        share.do("unlink", path)
        return
    for name in share.list(path):
        remove(share, os.path.join(path, name))
    share.do("rmdir", path)


def content(path):
    with open(path, "rb") as file:
        return file.read()


class Keeper:
    """The handles of all files of a tree: looked up once by name, and used alone from then on."""

    def __init__(self, share, source, tree):
        self.share, self.source, self.tree, self.handles = share, source, tree, {}

    def open(self):
        handle = ctypes.c_void_p()
        self.share.do("creat", self.tree + b"/gone", 0o600, ctypes.byref(handle))
        self.share.do("close", handle)
        self.gone = self.share.open(self.tree + b"/gone", os.O_RDWR)
        for directory, _, names in os.walk(self.source):
            for name in names:
                path = os.path.relpath(os.path.join(directory, name), self.source)
                if not os.path.islink(os.path.join(self.source, path)):
                    self.handles[path] = self.share.open(os.path.join(self.tree, path), os.O_RDONLY)
        self.read()
        return len(self.handles)

    def read(self, removed=b"nothing/"):
        stale = 0
        for path, handle in self.handles.items():
            if path.startswith(removed):
                self.expect_stale(handle)
                stale += 1
            else:
                data = self.share.read(handle)
                assert data == content(os.path.join(self.source, path)), f"{path} has other content"
        return stale

    def read_again(self):
        self.expect_stale(self.gone)
        stale = self.read(b"odd/")
        assert stale >= 4, stale
        return stale

    def expect_stale(self, handle):
        try:
            self.share.do("fstat64", handle, ctypes.byref(Stat()))
        except Refused as refused:
            assert "STALE" in str(refused), refused
        else:
            raise AssertionError("a handle of what was removed is not stale")


def keep(share, source, tree, ask, answer):
    keeper = Keeper(share, source, tree)
    deeds = {"open": keeper.open, "read": keeper.read, "read-again": keeper.read_again, "end": lambda: 0}
    while True:
        with open(ask) as question:
            word = question.readline().strip()
        try:
            text = f"ok {deeds[word]()}"
        except Exception as error:
            text = f"{word}: {error!r}"
        with open(answer, "w") as reply:
            print(text, file=reply)
        if word == "end":
            return


def main():
    version, export, deed, *words = sys.argv[1:]
    share = Share(version, export)
    words = [os.fsencode(word) for word in words]
    # Paths of the share begin at its root.
    if deed in ("put", "compare", "keep"):
        words[1] = b"/" + words[1]
    else:
        words = [b"/" + word for word in words]
    if deed == "put":
        put(share, *words, {})
    elif deed == "compare":
        compare(share, *words)
    elif deed == "keep":
        keep(share, *words)
    elif deed == "remove":
        remove(share, *words)
    else:
        share.do(deed, *words)


main()
