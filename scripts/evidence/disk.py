"""A disk that loses power: a file system in an image, shut down as it is, and mounted again.

    with own_mounts() as boot:                   nobody else sees the mounts, nor the boot id
        disk = Disk("xfs", directory, boot)      a file system at directory/disk; "ext4" too
        disk.cut()                               from here on nothing reaches the image; open files fail with EIO
        disk.back()                              after the daemon is dead: what the image has, on a machine that booted
        disk.is_filling()                        it should be left
        disk.close()
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import subprocess
import tempfile
import time
import uuid

from rig import PATIENCE, Trouble

BOOT_ID = "/proc/sys/kernel/random/boot_id"
# XFS_IOC_GOINGDOWN, which ext4 has, too, and its flag NOLOGFLUSH: as if the power failed.
GOING_DOWN, NO_LOG_FLUSH = 0x8004587D, (2).to_bytes(4, "little")
CLONE_NEWNS = 0x20000
KINDS = ("ext4", "xfs")
# What a fast machine writes in `--quick` (0.6 GB, and nothing of it is deleted from the bucket) is a small part of it.
SIZE = 4 << 30


def command(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        raise Trouble(f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}")


@contextlib.contextmanager
def own_mounts():
    """Gives this thread, and the threads and processes that it starts, their own mounts until the end (the mounts go
    with the last of those processes), and a boot id that can be changed."""
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.unshare(CLONE_NEWNS) != 0:
            raise Trouble(f"no mounts of our own: {os.strerror(ctypes.get_errno())} (root is needed)")
        command("mount", "--make-rprivate", "/")
        with tempfile.NamedTemporaryFile(prefix="s3vault-boot-") as file:
            command("mount", "--bind", file.name, BOOT_ID)
            boot = Boot(pathlib.Path(file.name))
            try:
                yield boot
            finally:
                subprocess.run(["umount", "-l", BOOT_ID], check=False)
                libc.setns(before, CLONE_NEWNS)
    finally:
        os.close(before)


class Boot:
    """The boot id that the kernel seems to have."""

    def __init__(self, file):
        self._file = file
        self.again()

    def again(self):
        self._file.write_text(f"{uuid.uuid4()}\n")


class Disk:
    """A file system of 4 GiB in a sparse file. When it comes back, its machine has booted."""

    def __init__(self, kind, directory, boot):
        self.kind, self.at = kind, directory / "disk"
        self._image, self._boot = directory / f"disk.{kind}", boot
        self.at.mkdir(parents=True)
        with open(self._image, "wb") as image:
            image.truncate(SIZE)
        command(f"mkfs.{kind}", "-q", self._image)
        self._mount()

    def _mount(self):
        command("mount", "-o", "loop", self._image, self.at)

    def cut(self):
        """The power fails: what was not flushed is lost."""
        root = os.open(self.at, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(root, GOING_DOWN, NO_LOG_FLUSH)
        finally:
            os.close(root)

    def back(self):
        """The machine boots. Nobody may have files of the disk open."""
        until = time.monotonic() + 10
        while True:
            try:
                command("umount", self.at)
                break
            except Trouble:
                # A process that was just killed is still closing its files.
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        self._boot.again()
        self._mount()

    def is_filling(self):
        """Whether less than half of it is free: a full disk is another evidence's subject."""
        space = os.statvfs(self.at)
        return space.f_bavail * space.f_frsize < SIZE // 2

    def close(self):
        if os.path.ismount(self.at):
            subprocess.run(["umount", "-l", self.at], check=False)
