"""The whole vault on a disk, a store and a clock that are controlled by one seed: src/vault/tests/simulation/. Without
a mount, and so thousands of times as fast. Built and run by cargo, in the release build; CI runs it with the other
tests."""

import os
import pathlib
import re
import subprocess

from rig import Trouble

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEST = "vault::tests::simulation::nothing_is_lost_whatever_happens"
# What it prints at the end of its time.
LINE = re.compile(r"^(\d+) runs from seed \d+ .*?Tally \{ (.*?) \}", re.MULTILINE)


def run(task):
    minutes = max(1, round((task.until - task.begun) / 60))
    seeds = {"S3VAULT_SIMULATE_SEED": str(task.seed), "S3VAULT_SIMULATE_MINUTES": str(minutes)}
    command = ["cargo", "test", "--release", "--lib", "--quiet", "--", "--exact", TEST, "--nocapture"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | seeds, capture_output=True, text=True)
    said = LINE.search(done.stdout)
    if done.returncode or not said:
        raise Trouble(f"a simulated run: {(done.stderr or done.stdout)[-4000:]}")
    tally = {name: int(count) for name, count in re.findall(r"(\w+): (\d+)", said[2])}
    task.trials, task.operations, task.faults = int(said[1]), tally["steps"], tally["faults"]
    task.notes.append(", ".join(f"{tally[name]} {name.replace('_', ' ')}" for name in ("kills", "power_cuts", "openings", "looks")))
