#!/usr/bin/env python3
"""Reads an s3vault from a copy of its bucket: a second implementation, written from src/FORMAT.md alone.

    read_vault.py DIR --passphrase-file FILE list            what is in the vault
    read_vault.py DIR --passphrase-file FILE extract OUT     all of it, into the new directory OUT
    read_vault.py DIR --passphrase-file FILE check           opens and verifies everything, writes nothing
    read_vault.py DIR --passphrase-file FILE salvage OUT     extents from packs alone, without log and checkpoints

DIR holds the vault's objects as files: a directory copy of the bucket (at the vault's prefix), or the directory of
a file:// store. FILE holds the passphrase or the recovery key. Every hash, chain and seal is verified; the first
thing that does not fit ends the program with status 1, naming the object. Needs Python 3.11 and, from PyPI, cryptography >= 50 and cbor2.
"""

import argparse
import hashlib
import hmac
import io
import os
import re
import stat
import sys
from collections import OrderedDict

import cbor2
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

CHUNK = 16384
META, INODE, ENTRY, EXTENT, XATTR, ORPHAN, PIN, PACK, HISTORY = range(1, 10)
KIND_EXTENT, KIND_FOOTER, KIND_COMMIT, KIND_PAGE, KIND_MANIFEST, KIND_SLOT, KIND_TRAILER = range(1, 8)
KIND_OLDER_KEY = 9
LABEL_OF_KIND = {
    KIND_EXTENT: b"content",
    KIND_FOOTER: b"content",
    KIND_TRAILER: b"content",
    KIND_COMMIT: b"commits",
    KIND_PAGE: b"pages",
    KIND_MANIFEST: b"pages",
    KIND_OLDER_KEY: b"older keys",
}
KEY_EPOCHS = 1  # the required feature of a vault with more than one key epoch
TRAILER = 80  # bytes that end a pack
PACKS_OPEN = 4  # extents kept decrypted: pieces of one extent mostly follow each other


class Bad(Exception):
    """Something in the bucket is not as it must be."""


# The exceptions raised, anywhere, when values have other types than the format requires.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, MemoryError)
reading = "the vault"  # what was decoded last


def malformed(error):
    """The message for such an error."""
    return f"{reading}: is not as the format says ({type(error).__name__}: {error})"


def u32(n):
    return n.to_bytes(4, "big")


def u64(n):
    return n.to_bytes(8, "big")


def number_name(n):
    return f"{n:016x}"


def sha256(data):
    return hashlib.sha256(data).digest()


def decode(what, data, padded=False):
    """Decodes one CBOR item with nothing after it (except zeros, if `padded`)."""
    global reading
    reading = what
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except (cbor2.CBORDecodeError, *MALFORMED) as error:
        raise Bad(f"{what}: {error}") from error
    rest = data[stream.tell():]
    if rest.strip(b"\0") if padded else rest:
        raise Bad(f"{what}: bytes follow its CBOR")
    return value


def field(what, mapping, key, kind):
    """A required field of a map."""
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Bad(f"{what}: field {key} is missing or of another type")
    return value


# Keys and seals


def hkdf(ikm, salt, label, epoch):
    info = b"s3vault/v1/" + label + b"\0" + u32(epoch)
    return HKDF(SHA512(), 32, salt, info).derive(ikm)


def unseal(what, key, context, message):
    try:
        decryptor = Cobblestone256Decryptor(key, context)
        return decryptor.update(message) + decryptor.finalize()
    except (InvalidTag, ValueError) as error:
        raise Bad(f"{what}: does not open (changed, truncated, or of another place)") from error


class EpochKeys:
    """The subkeys of one key epoch."""

    def __init__(self, master, vault, epoch):
        self.master, self.vault, self.epoch = master, vault, epoch
        labels = {b"superblock mac", b"names", *LABEL_OF_KIND.values()}
        self.of = {label: hkdf(master, vault, label, epoch) for label in labels}
        self.last = None  # above this number, no commit, manifest or page is of this epoch
        self.base = None  # the hash of the only manifest of this epoch that the current vault may begin at

    def commits_to(self, kind, place, message):
        """Whether a message was sealed with this epoch's key for this place, which its first 56 bytes tell."""
        context = b"\0\1" + self.vault + u32(self.epoch) + bytes([kind]) + place
        info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + message[:24] + context
        okm = HKDFExpand(SHA512(), 76, info).derive(self.of[LABEL_OF_KIND[kind]])
        return hmac.compare_digest(okm[44:], message[24:56])

    def open(self, what, kind, place, message):
        context = b"\0\1" + self.vault + u32(self.epoch) + bytes([kind]) + place
        return unseal(what, self.of[LABEL_OF_KIND[kind]], context, message)


class Keys:
    """The keys of all key epochs of a vault, in order."""

    def __init__(self, epochs):
        self.vault, self.epochs = epochs[0].vault, epochs

    def open(self, what, kind, place, message, epoch=None):
        """Opens a message with the only epoch that it may be of: a reference's epoch, or else the one that its
        commitment matches."""
        bounded = kind in (KIND_COMMIT, KIND_MANIFEST, KIND_PAGE)
        number = int.from_bytes(place[:8], "big") if bounded else 0
        for keys in reversed(self.epochs):
            if epoch is not None and keys.epoch != epoch:
                continue
            if keys.last is not None and number > keys.last:
                continue
            if keys.commits_to(kind, place, message):
                return keys.open(what, kind, place, message)
        raise Bad(f"{what}: does not open (changed, truncated, or of another place)")

    def name_hash(self, inode, name):
        return hmac.digest(self.epochs[0].of[b"names"], u64(inode) + name, "sha256")[:16]


def recovery_key(secret):
    """The 32 bytes of a recovery key, or None if `secret` is not one."""
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    try:
        text = re.sub(r"[\s-]", "", secret.decode("ascii")).upper()
    except UnicodeDecodeError:
        return None
    text = text.translate(str.maketrans("OIL", "011"))
    if len(text) != 56 or any(symbol not in alphabet for symbol in text):
        return None
    number = 0
    for symbol in text:
        number = number << 5 | alphabet.index(symbol)
    data = number.to_bytes(35, "big")
    good = sha256(b"s3vault recovery key" + data[:32])[:3] == data[32:]
    return data[:32] if good else None


def slot_key(slot, secret):
    """The input key of a slot's seal; None if the secret is of another kind than the slot."""
    kind, salt = field("key slot", slot, 0, int), field("key slot", slot, 2, bytes)
    memory, passes, lanes = (field("key slot", slot, key, int) for key in (3, 4, 5))
    if kind == 1:
        if not (65536 <= memory <= 2 << 20 and 3 <= passes <= 64 and 1 <= lanes <= 16):
            raise Bad("key slot: parameters out of bounds")
        password = secret.removesuffix(b"\n")
        argon2 = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
        return argon2.derive(password)
    recovery = recovery_key(secret) if kind == 2 else None
    return recovery and hkdf(recovery, salt, b"recovery slot", 0)


def unlock(slots, vault, epoch, secret):
    """The master key, from the first slot that the secret opens."""
    if len(slots) > 16:
        raise Bad("superblock: too many key slots")
    # Recovery key slots first, since they cost nothing.
    for slot in sorted(slots, key=lambda slot: slot.get(0) != 2):
        if slot.get(1) != epoch or (key := slot_key(slot, secret)) is None:
            continue
        parameters = bytes([slot[0]]) + b"".join(u32(slot[n]) for n in (3, 4, 5)) + slot[2]
        context = b"\0\1" + vault + u32(epoch) + bytes([KIND_SLOT]) + parameters
        try:
            return unseal("key slot", key, context, field("key slot", slot, 6, bytes))
        except Bad:
            continue
    raise Bad("wrong passphrase or recovery key")


# The bucket


class Vault:
    """A directory of objects, and the keys that open them."""

    def __init__(self, directory, secret):
        self.directory = directory
        self.warnings = []
        self.extents = OrderedDict()
        self.packs = set()
        self.generation, self.keys = self.open_superblock(secret)

    def path(self, name):
        return os.path.join(self.directory, *name.split("/"))

    def read(self, name):
        try:
            with open(self.path(name), "rb") as file:
                return file.read()
        except FileNotFoundError as error:
            raise Bad(f"{name}: is not there") from error

    def numbers(self, folder):
        """The numbers of the objects below `folder`, ascending."""
        try:
            names = os.listdir(self.path(folder))
        except FileNotFoundError:
            return []
        return sorted(int(name, 16) for name in names if re.fullmatch("[0-9a-f]{16}", name))

    def warn(self, text):
        self.warnings.append(text)
        print(f"warning: {text}", file=sys.stderr)

    def open_superblock(self, secret):
        generations = self.numbers("superblock")
        if not generations:
            raise Bad(f"{self.directory}: there is no vault here")
        name = f"superblock/{number_name(generations[-1])}"
        wire = decode(name, self.read(name))
        body, mac = field(name, wire, 0, bytes), field(name, wire, 1, bytes)
        block = decode(name, body)
        if field(name, block, 0, int) != 1 or set(field(name, block, 1, list)) - {KEY_EPOCHS}:
            raise Bad(f"{name}: a format or feature that this program does not know")
        vault, epoch = field(name, block, 3, bytes), field(name, block, 5, int)
        if len(vault) != 16 or field(name, block, 4, int) != generations[-1]:
            raise Bad(f"{name}: is of another generation")
        newest = EpochKeys(unlock(field(name, block, 6, list), vault, epoch, secret), vault, epoch)
        expected = hmac.digest(newest.of[b"superblock mac"], body, "sha256")
        if not hmac.compare_digest(expected, mac):
            raise Bad(f"{name}: its MAC is wrong")
        older = [self.older_epoch(name, newest, entry) for entry in block.get(8) or []]
        if [keys.epoch for keys in (*older, newest)] != list(range(1, epoch + 1)):
            raise Bad(f"{name}: its key epochs are not all from the first on")
        return generations[-1], Keys([*older, newest])

    @staticmethod
    def older_epoch(name, newest, entry):
        epoch = field(name, entry, 0, int)
        master = newest.open(name, KIND_OLDER_KEY, u32(epoch), field(name, entry, 2, bytes))
        keys = EpochKeys(master, newest.vault, epoch)
        keys.last, keys.base = entry.get(1), entry.get(3)
        return keys

    # The map

    def load(self):
        """The map as of the newest commit: {key: value}."""
        commit, commit_hash, records = 0, bytes(32), {}
        for number in reversed(self.numbers("checkpoint")):
            try:
                manifest = self.manifest(number)
            except (Bad, *MALFORMED) as error:
                why = error if isinstance(error, Bad) else malformed(error)
                self.warn(f"{why}; an older checkpoint is tried")
                continue
            commit, commit_hash = number, manifest[1]
            for page in manifest[6]:
                self.load_page(number, page, records)
            counts = {table[0]: table[1] for table in manifest[4]}
            found = {}
            for key in records:
                found[key[0]] = found.get(key[0], 0) + 1
            if counts != found:
                raise Bad(f"checkpoint/{number_name(number)}: its counts are not those of its pages")
            break
        self.check_below(commit, commit_hash)
        return self.follow(commit, commit_hash, records)

    def manifest(self, number):
        name = f"checkpoint/{number_name(number)}"
        sealed = self.read(name)
        manifest = decode(name, self.keys.open(name, KIND_MANIFEST, u64(number), sealed))
        for keys in self.keys.epochs:
            if keys.last is not None and keys.commits_to(KIND_MANIFEST, u64(number), sealed):
                if sha256(sealed) != keys.base:
                    raise Bad(f"{name}: is of an older key, and not where the vault begins")
        if field(name, manifest, 0, int) != number or len(field(name, manifest, 1, bytes)) != 32:
            raise Bad(f"{name}: is of another commit")
        if field(name, manifest, 2, int) > self.generation:
            raise Bad(f"{name}: names a newer superblock; this one was put back")
        first_keys = [field(name, page, 0, bytes) for page in field(name, manifest, 6, list)]
        if first_keys != sorted(set(first_keys)):
            raise Bad(f"{name}: its pages are not in order")
        for table in field(name, manifest, 4, list):
            field(name, table, 0, int), field(name, table, 1, int)
        return manifest

    def load_page(self, manifest_number, page, records):
        number = field("page reference", page, 1, int)
        page_id = field("page reference", page, 2, bytes)
        name = f"page/{number_name(number)}/{page_id.hex()}"
        sealed = self.read(name)
        if number > manifest_number or len(sealed) != page[3] or sha256(sealed) != page[8]:
            raise Bad(f"{name}: is not the page that its manifest names")
        if sealed[:24] != page[6] or sealed[24:56] != page[7]:
            raise Bad(f"{name}: salt or commitment is not that of its manifest")
        plain = self.keys.open(name, KIND_PAGE, u64(number) + page_id, sealed)
        index_offset = page[5]
        if len(plain) != page[4] or index_offset % CHUNK or not 0 < index_offset < len(plain):
            raise Bad(f"{name}: its lengths are not those of its manifest")
        index = decode(name, plain[index_offset:])
        starts = [chunk * CHUNK for chunk in index[1::2]] + [index_offset]
        last, count = b"", 0
        if not index or starts[0] != 0 or index[0] != page[0]:
            raise Bad(f"{name}: its index does not begin with its first key")
        for first_key, start, end in zip(index[::2], starts, starts[1:], strict=False):
            block = decode(name, plain[start:end], padded=True)
            if start >= end or not block or block[0] != first_key:
                raise Bad(f"{name}: a block is not the one that its index names")
            for key, value in zip(block[::2], block[1::2], strict=True):
                if key <= last:
                    raise Bad(f"{name}: records are not in order")
                records[key] = value
                last, count = key, count + 1
        if count != page[9]:
            raise Bad(f"{name}: {count} records, {page[9]} by its manifest")

    def check_below(self, commit, commit_hash):
        """Commits at or below the manifest may be gone; if the manifest's own commit is there, it must match."""
        name = f"log/{number_name(commit)}"
        if os.path.exists(self.path(name)) and sha256(self.read(name)) != commit_hash:
            raise Bad(f"{name}: is not the commit that its checkpoint names")

    def follow(self, commit, previous, records):
        """Applies the commits after `commit`, each verified against the one before."""
        later = [number for number in self.numbers("log") if number > commit]
        for number in range(commit + 1, max(later, default=commit) + 1):
            name = f"log/{number_name(number)}"
            sealed = self.read(name)
            content = decode(name, self.keys.open(name, KIND_COMMIT, u64(number), sealed))
            header = field(name, content, 0, dict)
            if header.get(0) != self.keys.vault or header.get(1) != number:
                raise Bad(f"{name}: is of another vault or number")
            if header.get(2) != previous:
                raise Bad(f"{name}: does not follow the commit before it")
            if field(name, header, 4, int) > self.generation:
                raise Bad(f"{name}: names a newer superblock; this one was put back")
            changes = list(field(name, header, 6, list))
            for transaction in field(name, content, 1, list):
                changes += field(name, decode(name, transaction), 1, list)
            for key, value in changes:
                if value is None:
                    records.pop(key, None)
                else:
                    records[key] = value
            previous = sha256(sealed)
            commit = number
        self.head, self.head_hash = commit, previous
        return records

    # Content

    def extent(self, reference):
        """The plaintext of the message that a reference names."""
        what = "reference"
        extent_id = field(what, reference, 3, bytes)
        if (known := self.extents.get(extent_id)) is not None and known[0] == reference:
            self.extents.move_to_end(extent_id)
            return known[1]
        pack, offset, length = reference[0].hex(), reference[1], reference[2]
        name = f"pack/{pack[:2]}/{pack}"
        self.packs.add(pack)
        epoch = reference.get(8)
        if reference.get(5) != 0 or epoch not in [keys.epoch for keys in self.keys.epochs]:
            raise Bad(f"{name}: a codec or key epoch that is not known")
        try:
            with open(self.path(name), "rb") as file:
                file.seek(offset)
                message = file.read(length)
        except FileNotFoundError as error:
            raise Bad(f"{name}: is not there") from error
        if len(message) != length or message[:24] != reference[6] or message[24:56] != reference[7]:
            raise Bad(f"{name}: is not what a record refers to")
        plain = self.keys.open(name, KIND_EXTENT, extent_id, message, epoch)
        if len(plain) != reference[4]:
            raise Bad(f"{name}: an extent is not as long as its reference says")
        self.extents[extent_id] = (reference, plain)
        while len(self.extents) > PACKS_OPEN:
            self.extents.popitem(last=False)
        return plain

    def footer(self, pack):
        """The entries of a pack's footer: reference, inode, offset and name of each extent."""
        name, pack_id = f"pack/{pack[:2]}/{pack}", bytes.fromhex(pack)
        data = self.read(name)
        end = int.from_bytes(self.keys.open(name, KIND_TRAILER, pack_id, data[-TRAILER:]), "big")
        plain = self.keys.open(name, KIND_FOOTER, pack_id, data[end:-TRAILER])
        entries = field(name, decode(name, plain, padded=True), 0, list)
        for entry in entries:
            reference = field(name, entry, 0, dict)
            if reference[0] != pack_id or reference[1] + reference[2] > end:
                raise Bad(f"{name}: its footer names extents that are not in it")
        return entries

    def piece(self, extent):
        """The bytes that an extent record refers to."""
        skip, length = field("extent", extent, 0, int), field("extent", extent, 1, int)
        plain = self.extent(field("extent", extent, 2, dict))
        if skip + length > len(plain):
            raise Bad("extent: means more than there is")
        return memoryview(plain)[skip:skip + length]


# The tree


class Tree:
    """The map, read as a tree of files."""

    def __init__(self, vault):
        self.vault = vault
        self.inodes, self.entries, self.extents, self.xattrs = {}, {}, {}, {}
        records = vault.load()
        for key in sorted(records):
            self.take(key, records[key])
        if 1 not in self.inodes:
            raise Bad("the map has no root directory")

    def take(self, key, value):
        table, inode = key[0], int.from_bytes(key[1:9], "big")
        if table == INODE:
            self.inodes[inode] = decode("inode", value)
        elif table == ENTRY:
            entry = decode("entry", value)
            name = field("entry", entry, 0, bytes)
            if self.vault.keys.name_hash(inode, name) != key[9:]:
                raise Bad("entry: its key is not that of its name")
            if not 1 <= len(name) <= 255 or name in (b".", b"..") or b"/" in name or b"\0" in name:
                raise Bad("entry: no file can have such a name")
            self.entries.setdefault(inode, []).append((name, field("entry", entry, 1, int), entry.get(2)))
        elif table == EXTENT:
            offset = int.from_bytes(key[9:], "big")
            self.extents.setdefault(inode, []).append((offset, decode("extent", value)))
        elif table == XATTR:
            xattr = decode("xattr", value)
            if self.vault.keys.name_hash(inode, field("xattr", xattr, 0, bytes)) != key[9:]:
                raise Bad("xattr: its key is not that of its name")
            self.xattrs.setdefault(inode, []).append((xattr[0], field("xattr", xattr, 1, bytes)))

    def walk(self, directory=1, path=b"", above=()):
        """(path, inode number) of everything below a directory, parents first."""
        for name, number, kind in sorted(self.entries.get(directory, [])):
            inode = self.inodes.get(number)
            if inode is None or stat.S_IFMT(inode[0]) != kind:
                raise Bad(f"entry: inode {number} is not there, or of another type")
            yield (path + name, number)
            if stat.S_ISDIR(inode[0]):
                if number in above or number == 1 or inode.get(10) != directory:
                    raise Bad(f"inode {number}: a directory in two places")
                yield from self.walk(number, path + name + b"/", (*above, directory))

    def pieces(self, number):
        """(offset, bytes) of a file's content; gaps are zeros."""
        inode = self.inodes[number]
        size, end = inode[5], 0
        whole = inode.get(11)
        extents = [(0, whole)] if whole is not None else self.extents.get(number, [])
        if whole is not None and number in self.extents:
            raise Bad(f"inode {number}: has an extent of its own, and extent records")
        for offset, extent in extents:
            if offset < end:
                raise Bad(f"inode {number}: extents overlap")
            end = offset + field("extent", extent, 1, int)
            if offset < size:
                yield offset, self.vault.piece(extent)[:size - offset]

    def check_counts(self):
        """Checks what the map records redundantly: the numbers of links."""
        links = {1: 2}
        for directory, entries in self.entries.items():
            for _, number, kind in entries:
                subdirectory = stat.S_ISDIR(kind)
                links[number] = links.get(number, 0) + (2 if subdirectory else 1)
                if subdirectory:
                    links[directory] = links.get(directory, 0) + 1
        for number, inode in self.inodes.items():
            if number in links and inode[3] != links[number]:
                self.vault.warn(f"inode {number}: {inode[3]} links, but {links[number]} entries")


def shown(name):
    """A name on one line, whatever bytes it contains."""
    return re.sub(rb"[\0-\x1f\x7f\\]", lambda byte: b"\\x%02x" % byte[0][0], name)


def list_tree(tree, out):
    for path, number in tree.walk():
        inode = tree.inodes[number]
        seconds, nanos = inode[7]
        target = b" -> " + shown(inode[12]) if inode.get(12) is not None else b""
        head = f"{stat.filemode(inode[0])} {inode[3]:4} {inode[1]:5} {inode[2]:5} {inode[5]:12} {seconds}.{nanos:09} "
        out.write(head.encode() + shown(path) + target + b"\n")


def check_tree(tree):
    tree.check_counts()
    files = size = 0
    for number in {number for _, number in tree.walk()}:
        files += 1
        if stat.S_ISREG(tree.inodes[number][0]):
            size += sum(len(data) for _, data in tree.pieces(number))
    for pack in tree.vault.packs:
        tree.vault.footer(pack)
    return files, size


def set_attributes(tree, number, path):
    """Sets owner, mode, attributes and times, in an order in which none undoes another."""
    inode, link = tree.inodes[number], os.path.islink(path)
    if os.geteuid() == 0:
        os.chown(path, inode[1], inode[2], follow_symlinks=False)
    if not link:
        os.chmod(path, stat.S_IMODE(inode[0]))
    for name, value in tree.xattrs.get(number, []):
        try:
            os.setxattr(path, name, value, follow_symlinks=False)
        except OSError as error:
            tree.vault.warn(f"inode {number}: attribute not set: {error.strerror}")
    times = tuple(seconds * 10**9 + nanos for seconds, nanos in (inode[6], inode[7]))
    os.utime(path, ns=times, follow_symlinks=False)


def extract_one(tree, number, path):
    inode = tree.inodes[number]
    mode = inode[0]
    if stat.S_ISDIR(mode):
        os.mkdir(path, 0o700)
    elif stat.S_ISLNK(mode):
        os.symlink(field("inode", inode, 12, bytes), path)
    elif stat.S_ISREG(mode):
        with open(path, "xb") as file:
            for offset, data in tree.pieces(number):
                os.pwrite(file.fileno(), data, offset)
            file.truncate(inode[5])
    else:
        os.mknod(path, stat.S_IFMT(mode) | 0o600, inode[4])


def extract(tree, out):
    out = os.fsencode(out)
    os.mkdir(out, 0o700)
    first, directories = {}, [(1, out)]
    for path, number in tree.walk():
        target = os.path.join(out, path)
        if stat.S_ISDIR(tree.inodes[number][0]):
            directories.append((number, target))
        elif number in first:
            os.link(first[number], target, follow_symlinks=False)
            continue
        try:
            extract_one(tree, number, target)
        except PermissionError as error:
            tree.vault.warn(f"inode {number}: not made: {error.strerror}")
            continue
        if not stat.S_ISDIR(tree.inodes[number][0]):
            set_attributes(tree, number, target)
            first[number] = target
    for number, target in reversed(directories):  # what is inside no longer changes their times
        set_attributes(tree, number, target)


def salvage(vault, out):
    """Extracts every extent that packs hold, named by inode number and name; the youngest pack last."""
    os.mkdir(out, 0o700)
    packs = []
    for folder, _, names in os.walk(vault.path("pack")):
        packs += [os.path.join(folder, name) for name in names if re.fullmatch("[0-9a-f]{32}", name)]
    packs.sort(key=os.path.getmtime)
    for path in packs:
        try:
            for entry in vault.footer(os.path.basename(path)):
                content = vault.extent(entry[0])
                name = b"%d %s" % (entry[1], entry[3].replace(b"/", b"_")[:200])
                target = os.open(os.path.join(os.fsencode(out), name), os.O_WRONLY | os.O_CREAT, 0o600)
                os.pwrite(target, content, entry[2])
                os.close(target)
        except Bad as error:
            vault.warn(str(error))
        except MALFORMED as error:
            vault.warn(malformed(error))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("--passphrase-file", required=True, metavar="FILE")
    parser.add_argument("command", choices=["list", "extract", "check", "salvage"])
    parser.add_argument("out", nargs="?", metavar="OUT")
    arguments = parser.parse_args()
    if (arguments.out is None) != (arguments.command in ("list", "check")):
        parser.error("extract and salvage want OUT, list and check do not")
    with open(arguments.passphrase_file, "rb") as file:
        secret = file.read()
    try:
        vault = Vault(arguments.directory.removeprefix("file://"), secret)
        if arguments.command == "salvage":
            salvage(vault, arguments.out)
        else:
            tree = Tree(vault)
            if arguments.command == "list":
                list_tree(tree, sys.stdout.buffer)
            elif arguments.command == "extract":
                extract(tree, arguments.out)
            else:
                files, size = check_tree(tree)
                print(f"commit {vault.head} ({vault.head_hash.hex()[:16]}): {files} files, {size} bytes, all open")
    except (Bad, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except MALFORMED as error:
        print(f"error: {malformed(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
