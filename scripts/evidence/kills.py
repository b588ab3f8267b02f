"""Kills the daemon at random moments while several threads change files, and compares what the next mount shows."""

import random
import time

from model import Worker, Workers
from rig import Rig, Trouble, say

QUICK_KILLS = 60
# How many kills a vault is used for: nothing in its bucket is deleted yet, so a soak starts anew now and then.
KILLS_PER_VAULT = 200


def run(task):
    while True:
        with Rig(task.part, task.seed) as rig:
            one_vault(task, rig)
        if task.quick or not task.goes_on():
            return


def one_vault(task, rig):
    here, workers = rig.machine("here"), Workers(f"{task.seed}/{task.trials}")
    chance = random.Random(f"{task.seed}/kills/{task.trials}")
    operations = task.operations
    try:
        rig.init(here)
        here.mount()
        for kill in range(1, KILLS_PER_VAULT + 1):
            workers.begin(here.mountpoint)
            time.sleep(chance.uniform(0.02, 0.8))
            here.kill()
            workers.rest()
            task.trials, task.faults = task.trials + 1, task.faults + 1
            here.mount()
            workers.after_kill(here.mountpoint)
            task.operations = operations + workers.operations
            if kill % 10 == 0:
                from_bucket(rig, workers)
                here.sync()
                workers.synced()
                say(f"{task.part}: {task.trials} kills, {task.operations} operations")
            if (task.trials >= QUICK_KILLS) if task.quick else not task.goes_on():
                break
        here.umount()
        workers.synced()
        rig.check()
        from_bucket(rig, workers)
    except Trouble as error:
        rig.keep_logs(error)
        raise
    finally:
        workers.end()


def from_bucket(rig, workers):
    with rig.from_bucket_alone() as there:
        workers.judge(there.mountpoint, Worker.in_bucket)
