#!/usr/bin/env python3
"""Checks that a live mount exports each metric that scripts/contrib/grafana.json and the table of src/MANUAL.md name;
for scripts/suites/recipes.

    scripts/suites/dashboard.py <METRICS       the answer of /metrics
"""

import json
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def exported(text):
    """The names of series; a histogram has one per suffix."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        found |= {name + end for end in ("_bucket", "_sum", "_count")} | {name} if kind == "histogram" else {name}
    return found


def of_dashboard():
    with open(os.path.join(ROOT, "scripts/contrib/grafana.json")) as file:
        board = json.load(file)
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked += [variable["query"] for variable in board["templating"]["list"]]
    assert len(asked) > 20, "the dashboard asks for next to nothing"
    return {name for expr in asked for name in re.findall(r"\bs3vault_\w+", expr)}


def of_manual():
    with open(os.path.join(ROOT, "src/MANUAL.md")) as file:
        table = re.search(r"^\| metric \(`s3vault_\.\.\.`\).*?\n\n", file.read(), re.M | re.S)[0]
    cells = "\n".join(line.split(" | ")[0].replace("\\|", "") for line in table.splitlines()[2:])
    names = {"s3vault_" + name for name in re.findall(r"`([a-z_]+)(?:\{[^`]*\})?`", cells)}
    assert len(names) > 20, "the manual's table was not found"
    return names


def main():
    known = exported(sys.stdin.read())
    missing = [f"{where}: no mount exports {name}" for where, names in (("scripts/contrib/grafana.json", of_dashboard()),
                                                                         ("src/MANUAL.md", of_manual()))
               for name in sorted(names - known)]
    print("\n".join(missing) or f"{len(of_dashboard())} metrics of the dashboard are exported")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
