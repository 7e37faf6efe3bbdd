"""The crash suite: every way a crash can spoil the work, each provoked on purpose, and an audit after each.

    scripts/crash [--share 1.0] [--beside 3] [--only WORDS] [--list]

Exit status 0 only if nothing was lost, paid twice, stuck or otherwise untrue.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from crashes.play import Score, play_all, table
from crashes.stories import CASES, LEFT_OUT


def main(wanted: argparse.Namespace) -> int:
    """Play the cases; the table goes to standard output, what was found to standard error."""
    chosen = [case for case in CASES if wanted.only.lower() in f"{case.point} {case.name}".lower()]
    if wanted.list:
        print("\n".join(f"{case.point}  {case.name}  ({case.rounds})" for case in chosen))
        return 0
    began = time.monotonic()
    scores = play_all(chosen, wanted.share, wanted.beside, tell)
    print(table(scores))
    print(f"{time.monotonic() - began:.0f} s; not played on this machine: {', '.join(LEFT_OUT) or 'none'}")
    return int(any(one.found for one in scores))


def tell(score: Score) -> None:
    """One case is done; whatever was found is shown at once."""
    print(
        f"{score.case.point} {score.case.name}: {score.runs} runs, {score.seconds:.0f} s", file=sys.stderr, flush=True
    )
    for one in score.found:
        print(f"    {one.sort}: {one.text}", file=sys.stderr, flush=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--share", type=float, default=1.0, help="of each case's rounds; 0 plays each once")
parser.add_argument("--beside", type=int, default=3, help="so many cases at the same time")
parser.add_argument("--only", default="", help="cases whose point and name contain this")
parser.add_argument("--list", action="store_true", help="name the cases and play none")
os.environ.setdefault("PYTHONWARNINGS", "ignore")
if __name__ == "__main__":
    sys.exit(main(parser.parse_args()))
