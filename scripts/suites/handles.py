"""Handles of files (`name_to_handle_at(2)`) for scripts/suites/nfs: a program that keeps them as a server does.

    handles.py save TREE FILE            notes the handle of each file and directory of a tree
    handles.py check TREE FILE REMOVED   opens each handle again: it is the file that it was, or stale if below REMOVED
"""

import ast
import ctypes
import errno
import hashlib
import os
import stat
import sys

LIB = ctypes.CDLL(None, use_errno=True)


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("kind", ctypes.c_int), ("content", ctypes.c_ubyte * 128)]


def handle_of(path):
    handle, mount = Handle(bytes=128), ctypes.c_int()
    if LIB.name_to_handle_at(-100, path, ctypes.byref(handle), ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at", path)
    return bytes(handle)


def open_handle(top, saved):
    handle = Handle.from_buffer_copy(saved)
    descriptor = LIB.open_by_handle_at(top, ctypes.byref(handle), os.O_RDONLY)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "open_by_handle_at")
    return descriptor


def sight(descriptor):
    """The identity of a file: its inode number, its kind, and its content or entries."""
    meta = os.fstat(descriptor)
    if stat.S_ISDIR(meta.st_mode):
        found = repr(sorted(os.listdir(descriptor)))
    else:
        with open(descriptor, "rb", closefd=False) as file:
            found = hashlib.sha256(file.read()).hexdigest()
    return f"{meta.st_ino} {meta.st_mode:o} {found}"


def save(tree, notes):
    with open(notes, "w") as out:
        for directory, _, names in os.walk(os.fsencode(tree)):
            for path in [directory, *(os.path.join(directory, name) for name in names)]:
                if os.path.islink(path):
                    continue
                descriptor = os.open(path, os.O_RDONLY)
                print(repr((os.path.relpath(path, os.fsencode(tree)), handle_of(path), sight(descriptor))), file=out)
                os.close(descriptor)


def check(tree, notes, removed):
    top = os.open(tree, os.O_RDONLY)
    good = stale = 0
    for line in open(notes):
        path, saved, before = ast.literal_eval(line)
        try:
            descriptor = open_handle(top, saved)
        except OSError as error:
            assert error.errno == errno.ESTALE and (path + b"/").startswith(os.fsencode(removed) + b"/"), (path, error)
            stale += 1
            continue
        assert not (path + b"/").startswith(os.fsencode(removed) + b"/"), f"{path} was removed, and its handle opens"
        # The directory that lost a name looks different.
        assert path == b"." or sight(descriptor) == before, path
        os.close(descriptor)
        good += 1
    assert good and stale, (good, stale)
    print(good)


{"save": save, "check": check}[sys.argv[1]](*sys.argv[2:])
