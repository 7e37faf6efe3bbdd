"""Customers and those they want told, every fault a provider can have, and kill -9 every few seconds; then an audit.

    scripts/chaos [2000] [--restarts 20] [--every-s 4] [--seed 1] [--rare 20]
    scripts/chaos --machine 600 [--seed 1]

With --machine random short lives are played against the code itself for so many seconds, and the shortest one
that goes wrong is shown. Exit status 0 only if nothing was lost, paid twice, stuck or otherwise untrue.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from storms.report import table
from storms.storm import Plan, run


def main(wanted: argparse.Namespace) -> int:
    """The table goes to standard output, progress to standard error."""
    if wanted.machine:
        play_machine(wanted.machine, wanted.seed)
    plan = Plan(wanted.generations, wanted.restarts, wanted.every_s, wanted.seed, wanted.rare)
    report = run(plan, lambda text: print(text, file=sys.stderr, flush=True))
    print(table(report))
    return int(bool(report.found))


def play_machine(seconds: float, seed: int) -> NoReturn:
    """The state machine of the tests, for longer."""
    os.environ |= {"MACHINE_S": str(seconds), "MACHINE_SEED": str(seed)}
    os.execv(sys.executable, [sys.executable, "-m", "pytest", "-q", "tests/test_lifecycle_machine.py"])


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("generations", type=int, nargs="?", default=2000)
parser.add_argument("--restarts", type=int, default=20)
parser.add_argument("--every-s", type=float, default=4.0, help="seconds between two shocks, about")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument(
    "--rare", type=int, default=20, help="each fault strikes every so-many-th to six times so-many-th time"
)
parser.add_argument("--machine", type=float, metavar="SECONDS", help="play the state machine instead")
os.environ.setdefault("PYTHONWARNINGS", "ignore")
if __name__ == "__main__":
    sys.exit(main(parser.parse_args()))
