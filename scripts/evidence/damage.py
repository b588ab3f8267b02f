"""Damages state and data files: each existing file, one at a time, is truncated, flipped, zeroed or removed.

Then the next mount recovers by itself, and everything that was promised is there; or it is refused with an exit code
and a message that names the file and the way out, which is then followed to see that it works. What is in the bucket
is never lost. If anything else is lost, that is reported, and it is the end of what was done, never something in the
middle: what was done before the last barrier is not lost without a question (J3). Nothing hangs, nothing panics, no
states are mixed.
"""

import json
import os
import random
import re
import shutil
import stat
import subprocess

from model import Worker, Workers
from rig import Rig, Trouble, say
from tree import UNREADABLE

# The content of the state and data directories, by patterns of the path in them. The quick form damages each kind, too.
KINDS = {
    "journal": r"state/.*/journal/", "closed pack": r"state/.*/staging/.*\.pack$", "open pack": r"state/.*/staging/.*\.open$",
    "cache": r"state/.*/cache/", "index": r"state/.*/index/", "socket": r"control\.sock$", "lock": r"/lock$",
    "log": r"daemon\.log$", "how the last one ended": r"last\.json$", "what was seen": r"\.seen$",
    "what the store can": r"\.(probed|store)$", "who runs": r"running/", "configuration": r"config\.toml$"}
UNSENT = ("journal", "closed pack", "open pack")
QUICK_TRIALS = 20


def run(task):
    while True:
        with Rig(task.part, task.seed) as rig:
            Damages(task, rig).run()
        if task.quick or not task.goes_on():
            return


# The kinds of damage: functions of a file's bytes and of chance. None: the file is removed.

def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1:]


DAMAGES = {
    "cut to nothing": lambda content, chance: b"",
    "cut in half": lambda content, chance: content[:len(content) // 2],
    "cut by a byte": lambda content, chance: content[:-1],
    "a bit of its start flipped": lambda content, chance: flipped(content, 0),
    "a bit of its middle flipped": lambda content, chance: flipped(content, len(content) // 2),
    "a bit of its end flipped": lambda content, chance: flipped(content, len(content) - 1),
    "some bit flipped": lambda content, chance: flipped(content, chance.randrange(len(content))),
    "zeroed": lambda content, chance: bytes(len(content)),
    "removed": lambda content, chance: None,
    "cut somewhere": lambda content, chance: content[:chance.randrange(len(content))],
    "with something behind its end": lambda content, chance: content + chance.randbytes(chance.randrange(1, 5000)),
}


class Damages:
    """A vault whose machine died with unsent changes, and what happens to copies of it."""

    def __init__(self, task, rig):
        self.task, self.rig = task, rig
        self.name = f"{task.seed}/{task.trials}"
        self.chance = random.Random(f"{self.name}/damage")
        self.here = rig.machine("here", mountpoint=rig.scratch / "mounts/here/vault")
        self.bucket = rig.scratch / "bucket"
        self.workers = Workers(self.name, count=2)
        self.outcomes, self.troubles = {}, []

    def run(self):
        try:
            self.prepare()
            for kind, path, damage in self.trials():
                self.task.trials, self.task.faults = self.task.trials + 1, self.task.faults + 1
                what = f"{kind}: {path.relative_to(self.here.home / '.local') if kind != 'configuration' else path.name} {damage}"
                self.restore()
                self.one(kind, path, damage, what)
                if not self.task.quick and not self.task.goes_on():
                    break
            self.directories()
            self.task.notes = [f"{kind}: {', '.join(sorted(outcomes))}" for kind, outcomes in sorted(self.outcomes.items())]
            self.older_state()
            self.cloned_state()
            if self.troubles:
                raise Trouble(f"{len(self.troubles)} times: {self.troubles[0]}")
        except Trouble as error:
            self.rig.keep_logs(error)
            raise
        finally:
            self.workers.end()

    # The vault before the damage.

    def prepare(self):
        here, workers = self.here, self.workers
        self.rig.init(here)
        here.mount()
        self.work(1)
        here.sync()
        workers.close_files()
        here.umount()
        workers.synced()
        # The state of last week, with something unsent.
        here.mount()
        self.without_store(lambda: self.work(0.5))
        self.keep("last week")
        here.mount()
        workers.after_kill(here.mountpoint)
        self.work(0.5)
        here.sync()
        workers.synced()
        self.without_store(self.unsent_work)
        self.keep("pristine")
        self.task.operations += workers.operations
        say(f"{self.task.part}: {sum(map(len, (worker.history for worker in workers.all)))} unsent operations in "
            f"{len(list(self.files()))} files")

    def unsent_work(self):
        """Does some work before a barrier, and some after."""
        self.work(1)
        for worker in self.workers.all:
            worker.sync_it(worker.open(worker.some(worker.tree.files()) or "000"))
        self.work(0.3)

    def work(self, seconds):
        self.workers.begin_for(self.here.mountpoint, seconds)

    def without_store(self, work):
        """Kills the daemon before the store is back."""
        away = self.bucket.with_name("away")
        self.bucket.rename(away)
        work()
        self.here.kill()
        self.workers.forget_descriptors()
        away.rename(self.bucket)

    def keep(self, name):
        for directory in (self.here.home, self.bucket):
            copy_tree(directory, self.rig.scratch / name / directory.name)

    def restore(self, name="pristine", home=True, bucket=True):
        self.here.clean_up()
        for directory in [self.here.home] * home + [self.bucket] * bucket:
            shutil.rmtree(directory)
            copy_tree(self.rig.scratch / name / directory.name, directory)

    def files(self):
        """Each file, with its kind."""
        for directory, _, names in os.walk(self.here.home):
            for name in names:
                path = self.here.home / directory / name
                text = str(path.relative_to(self.here.home))
                yield next((kind for kind, pattern in KINDS.items() if re.search(pattern, text)), "other"), path

    def trials(self):
        files = sorted(self.files())
        all_of_them = [(kind, path, damage) for kind, path in files for damage in DAMAGES
                       if path.is_file() and path.stat().st_size or damage == "removed" or stat.S_ISSOCK(path.stat().st_mode)]
        self.chance.shuffle(all_of_them)
        if not self.task.quick:
            return all_of_them
        # One of each kind, and then more of those that cannot be recreated.
        first = {kind: trial for trial in all_of_them for kind in [trial[0]]}
        matter = [trial for trial in all_of_them if trial[0] in (*UNSENT, "what was seen", "index")
                  and trial not in first.values()]
        return (list(first.values()) + matter)[:QUICK_TRIALS]

    # One trial.

    def one(self, kind, path, damage, what):
        content = path.read_bytes() if path.is_file() else b"-"
        damaged = None if damage == "removed" else DAMAGES[damage](content, self.chance)
        remove(path)
        if damaged is not None:
            path.write_bytes(damaged)
        try:
            outcome = self.mount_and_judge(kind, path, damage)
        except (Trouble, OSError) as trouble:
            # The others are tried all the same: one kind of damage says little about another.
            self.troubles.append(f"{what}: {trouble}")
            self.rig.keep_logs(self.troubles[-1])
            return say(f"{self.task.part}: {self.troubles[-1]}")
        self.outcomes.setdefault(kind, set()).add(outcome)
        say(f"{self.task.part}: {what}: {outcome}")

    def mount_and_judge(self, kind, path, damage):
        here, unsent = self.here, kind in UNSENT
        done = here.try_mount()
        said, refused = done.out + done.err, done.code
        if refused:
            done = here.try_mount(*self.way_out(path, refused, said))
            if done.code != 0:
                raise Trouble(f"{said}; and then: {done.code}: {done.out}{done.err}")
        said = done.out + done.err + json.dumps(here.status())
        # A truncated journal looks like one whose last records never reached the disk: nothing on this disk can tell.
        at_least = Worker.in_bucket if unsent and (refused or kind == "journal" and "cut" in damage) else \
            Worker.fsynced if unsent else Worker.in_journal
        lacking = self.workers.judge(here.mountpoint, at_least, may_fail=unsent and refused)
        unreadable = unreadable_in(self.workers.found(here.mountpoint))
        if (lacking or unreadable) and not re.search("dropped|given up", said):
            raise Trouble(f"something is lost, and nothing is said: {said}")
        if unsent or refused:
            # If a pack is complete but damaged, only the damaged part is unreadable, and a check finds that.
            self.end_and_check(unreadable, path.stem if refused and "pack" in kind else None)
        else:
            self.end()
        outcome = "some files cannot be read" if unreadable else "the end of what was unsent is lost" if lacking else "all there"
        return f"refused ({refused}), and then: {outcome}" if refused else f"{outcome}, and said" if lacking else outcome

    def way_out(self, path, code, said):
        """Follows the message: returns its advice as options of the next mount."""
        if code == 1 or path.name not in said and path.parent.name not in said:
            raise Trouble(f"exit code {code}, and the message does not name {path.name}: {said}")
        if option := re.search(r"--accept-[a-z]+", said):
            return [option[0]]
        if not re.search("move it away|remove the old one from", said):
            raise Trouble(f"exit code {code}, and no way out: {said}")
        path.unlink()
        return []

    def end_and_check(self, unreadable=(), damaged_pack=None):
        """Checks that what is there is in the bucket, complete, and that nothing panicked. If a damaged pack went to
        the bucket, a check reports it, and names exactly the files that cannot be read."""
        found = [self.workers.found(self.here.mountpoint)]
        self.end()
        said = self.rig.check(0, 16).out if damaged_pack else self.rig.check().out
        damaged = [line for line in said.splitlines() if line.strip().startswith("damaged: ")]
        if any(f"/{damaged_pack}: " not in line for line in damaged) or len(damaged) > 1:
            raise Trouble(f"not this one alone is damaged: {said}")
        named = re.findall(r"cannot be read whole: (.*)", said)
        named = {name for names in named for name in re.sub(r" and \d+ more$", "", names).split(", ")}
        if len(named) != min(len(unreadable), 10) or not named <= {name for names in unreadable for name in names}:
            raise Trouble(f"what cannot be read is {unreadable}, and a check says: {said}")
        with self.rig.from_bucket_alone() as there:
            found.append(self.workers.found(there.mountpoint))
        if found[0] != found[1]:
            raise Trouble("the bucket alone shows something else")

    def end(self):
        self.here.umount()
        panics = [line for line in self.here.log.read_text(errors="replace").splitlines() if " panicked at " in line]
        # sled reacts to a damaged file with a panic in its own code, which is caught: the index is rebuilt (J4).
        if ours := [line for line in panics if "/sled-" not in line]:
            raise Trouble(f"something panicked: {ours[0]}")

    # Whole directories.

    def directories(self):
        """Removes each directory."""
        for kind, name in [("journal", "journal"), ("closed pack", "staging"), ("cache", "cache"), ("index", "index"),
                           (None, "")]:
            self.task.trials, self.task.faults = self.task.trials + 1, self.task.faults + 1
            self.restore()
            path = self.here.state / name
            if name:
                self.one(kind, path, "removed", f"directory {name} removed")
                continue
            # Nothing on this machine knows what is lost: the manual says that these files exist here only.
            shutil.rmtree(path)
            self.here.mount()
            self.workers.judge(self.here.mountpoint, Worker.in_bucket)
            self.end_and_check()
            say(f"{self.task.part}: state removed: what was in the bucket is there")

    def older_state(self):
        """Restores last week's directories, while the bucket went on. The bucket counts; what was unsent is in it
        already, or is set aside."""
        for what in ("state and data", "state alone"):
            self.task.trials, self.task.faults = self.task.trials + 1, self.task.faults + 1
            self.restore()
            self.here.mount()
            self.workers.judge(self.here.mountpoint, Worker.in_journal)
            self.here.umount()
            data = self.rig.scratch / "data-of-today"
            copy_tree(self.here.data, data)
            self.restore("last week", bucket=False)
            if what == "state alone":
                shutil.rmtree(self.here.data)
                copy_tree(data, self.here.data)
            shutil.rmtree(data)
            self.here.mount()
            self.workers.judge(self.here.mountpoint, Worker.in_journal)
            self.end_and_check()
            say(f"{self.task.part}: {what} of last week: all there")

    def cloned_state(self):
        """Two machines with the same directories, mounted in turn."""
        self.task.trials, self.task.faults = self.task.trials + 1, self.task.faults + 1
        self.restore()
        clone = self.rig.machine("clone", mountpoint=self.rig.scratch / "mounts/clone/vault")
        shutil.rmtree(clone.home)
        copy_tree(self.here.home, clone.home)
        refused = clone.try_mount()
        if refused.code != 12 or "--take-over" not in refused.err:
            raise Trouble(f"a clone mounts a vault that the other one has not released: {refused}")
        self.here.mount()
        self.workers.judge(self.here.mountpoint, Worker.in_journal)
        self.here.umount()
        for machine in (clone, self.here, clone):
            machine.mount()
            self.workers.judge(machine.mountpoint, Worker.in_journal)
            (machine.mountpoint / "turn").write_text(machine.name)
            machine.umount()
        # Now the other way round: the clone takes over, with the same unsent changes.
        self.restore()
        clone.clean_up()
        shutil.rmtree(clone.home)
        copy_tree(self.here.home, clone.home)
        clone.mount("--take-over")
        self.workers.judge(clone.mountpoint, Worker.in_journal)
        clone.umount()
        self.here.mount()
        self.workers.judge(self.here.mountpoint, Worker.in_journal)
        self.end_and_check()
        say(f"{self.task.part}: cloned state: all there")


def unreadable_in(found):
    """The files that cannot be read, each with all of its names."""
    return {tuple(f"{worker}/{name}" for name in names)
            for worker, tree in found.items() for content, names in tree.values() if content is UNREADABLE}


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def copy_tree(source, target):
    """Copies a tree, including sockets."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True)
