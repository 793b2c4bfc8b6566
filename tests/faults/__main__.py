"""Runs every loop of faults, or those named, one after the other, and prints what each counted.

The exit code is 1 if a loop found a violation; what it found is printed. `--seed` repeats the choices of a run.
"""

import argparse
import sys
import time

from tests.faults.loops import LOOPS
from tests.faults.tally import Budget, Tally


def _run(name: str, seconds: float, rounds: int, seed: str) -> Tally:
    began = time.monotonic()
    tally = LOOPS[name](Budget.of(seconds, rounds, f"{seed} {name}"))
    counts = ", ".join(f"{number} {what}" for what, number in sorted(tally.counts.items()))
    verdict = f"{len(tally.violations)} VIOLATIONS" if tally.violations else "no violation"
    print(f"{name:14} {time.monotonic() - began:4.0f} s  {verdict}  ({counts})", flush=True)
    for violation in tally.violations:
        print(f"  {violation}", flush=True)
    return tally


def main() -> int:
    """Return 0 if no promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1080, help="for all loops together (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="at most, for each loop")
    parser.add_argument("--seed", default=str(time.time_ns()), help="of the random choices")
    parser.add_argument("loops", nargs="*", default=list(LOOPS), metavar="LOOP", help=", ".join(LOOPS))
    asked = parser.parse_args()
    unknown = [name for name in asked.loops if name not in LOOPS]
    if unknown:
        parser.error(f"there is no loop {unknown[0]}; there are {', '.join(LOOPS)}")
    print(f"seed {asked.seed}", flush=True)
    each = asked.seconds / len(asked.loops)
    tallies = [_run(name, each, asked.rounds, asked.seed) for name in asked.loops]
    return 1 if any(tally.violations or not tally.counts for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
