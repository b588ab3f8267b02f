"""Gives scripts/read_vault.py mutated vaults: objects with changed bytes, and, past their seals, changed plaintexts.

    reader.py SCRIPTS GOLDEN ROUNDS [SEED]

Each round is one seed. Exits with 1 at the first round that does not end in time, or ends with anything but a result
or an error.
"""

import collections
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback

SECONDS = 20
WORDS = [b"\x9b" + b"\xff" * 8, b"\x5b\x7f" + b"\xff" * 7, b"\x9f", b"\xbf", b"\xff", b"\x81" * 2000, b"\x1b" + b"\xff" * 8,
         b"\x3b" + b"\xff" * 8, b"\xf6", b"\xa0", b"\x80", b"\x40", b"\xfb\x7f\xf0" + b"\0" * 6, b"\xc2\x5a\xff\xff\xff\xff",
         b"\xd8\x1c\xd8\x1d\x00", b"\xd9\x01\x00\x80", b"\xc0\x61x", b"\xd8\x23\x64(a+)"]


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.randint(1, 16))
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.randrange(256)
            case 2:
                del data[at:]
            case 3:
                del data[at:end]
            case 4:
                data[at:at] = rng.choice(WORDS)
            case _:
                word = rng.choice(WORDS)
                data[at:at + len(word)] = word
    return bytes(data)


def objects(root):
    found = []
    for folder, _, names in os.walk(root):
        found += [os.path.join(folder, name) for name in names if name != "README"]
    return sorted(found)


def changed_object(root, rng):
    path = rng.choice(objects(root))
    with open(path, "rb") as file:
        data = file.read()
    match rng.randrange(5):
        case 0:
            os.remove(path)
        case 1:
            with open(rng.choice(objects(root)), "rb") as file:
                other = file.read()
            with open(path, "wb") as file:
                file.write(other)
        case _:
            with open(path, "wb") as file:
                file.write(mutated(data, rng))


def one(reader, golden, seed, secret):
    """Runs one round; returns "whole" or "an error", or `None` if the result was neither."""
    rng = random.Random(seed)
    sealed = reader.Keys.open
    past_the_seal = rng.random() < 0.75
    if past_the_seal:
        left = [rng.randrange(1, 14)]

        def opened(self, what, kind, place, message):
            plain = sealed(self, what, kind, place, message)
            left[0] -= 1
            return mutated(plain, rng) if left[0] == 0 else plain

        reader.Keys.open = opened
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with tempfile.TemporaryDirectory() as home:
        copy = os.path.join(home, "vault")
        shutil.copytree(golden, copy)
        if not past_the_seal:
            changed_object(copy, rng)
        command = rng.choice(["list", "check", "check", "extract", "salvage"])
        words = [copy, "--passphrase-file", secret, command]
        words += [os.path.join(home, "out")] if command in ("extract", "salvage") else []
        sys.argv = ["read_vault.py", *words]
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = reader.main()
        except BaseException:  # noqa: BLE001, this looks for anything at all
            print(f"seed {seed}, {command}{', past the seal' if past_the_seal else ''}:\n{traceback.format_exc()}")
            return None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            reader.Keys.open = sealed
    said = err.getvalue()
    if status not in (0, 1) or (status == 1 and "error: " not in said) or "Error(" in said:
        print(f"seed {seed}, {command}: status {status}, and it says: {said}")
        return None
    return "an error" if status else "whole"


def late(*_):
    raise TimeoutError(f"{SECONDS} seconds of a processor are over")


def main():
    scripts, golden, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    first = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    sys.path.insert(0, scripts)
    sys.dont_write_bytecode = True
    import read_vault as reader

    # The key of the golden vault's passphrase is derived once; a slot that asks for another is really derived.
    known, derive = {}, reader.slot_key

    def slot_key(slot, secret):
        key = repr(slot)
        if key not in known:
            known[key] = derive(slot, secret)
        return known[key]

    reader.slot_key = slot_key
    signal.signal(signal.SIGPROF, late)
    tally = collections.Counter()
    with tempfile.NamedTemporaryFile() as secret:
        secret.write(b"golden, for ever\n")
        secret.flush()
        for seed in range(first, first + rounds):
            outcome = one(reader, golden, seed, secret.name)
            tally[outcome] += 1
            if tally[None] >= 5:
                break
    print(dict(tally))
    return 1 if tally[None] else 0


if __name__ == "__main__":
    sys.exit(main())
