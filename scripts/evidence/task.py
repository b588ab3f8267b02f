"""The parameters of a part of scripts/soak, and what it counts."""

import time


class Task:
    """One part's turn: how long, from which seed, and the result.

    A part is a module with `run(task)`, which goes on while `task.goes_on()`, or in its quick form until it has done
    what CI asks for. It raises `rig.Trouble` when anything is lost, wrong or hangs."""

    def __init__(self, part, seed, minutes, quick, share=1):
        self.part, self.seed, self.quick, self.share = part, seed, quick, share
        self.begun = time.monotonic()
        self.until = self.begun + 60 * minutes
        self.trials = self.operations = self.faults = 0
        # Further remarks, as text.
        self.notes = []

    def goes_on(self):
        return time.monotonic() < self.until

    def line(self, trouble=None):
        """The one line of the part; like that of a suite."""
        counts = f"{self.trials} trials, {self.operations} operations, {self.faults} faults"
        counted = "; ".join([counts, *self.notes, f"seed {self.seed}, {time.monotonic() - self.begun:.0f} s"])
        return f"{self.part}: FAILED: {trouble} ({counted})" if trouble else f"{self.part}: lost 0; {counted}"
