"""`make bench-server`: the server with a simulated fleet. `python -m benchmarks.server --rows 1000x20 --scale 0.1`."""

import argparse
import sys
from functools import partial

from benchmarks.fleet.driver import STATUS_PAUSE_S
from benchmarks.measuring.running import prepare_process, run_rows
from benchmarks.server.options import Options
from benchmarks.server.rows import ROWS


def main() -> int:
    """Run the rows that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--rows", help=f"names with commas; by default all of {', '.join(ROWS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the number of agents")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, interleaved; the median counts")
    parser.add_argument("--no-naive", action="store_true", help="do not run the naive server beside")
    parser.add_argument("--status-pause", type=float, default=STATUS_PAUSE_S, metavar="S", help="of the agents")
    given = parser.parse_args()
    options = Options(given.scale, given.rounds, not given.no_naive, given.status_pause)
    rows = {name: partial(row, options) for name, row in ROWS.items()}
    conditions = {"scale": options.scale, "rounds": options.rounds, "status_pause_s": options.status_pause_s}
    prepare_process()
    return run_rows("bench-server", rows, given.rows, conditions)


if __name__ == "__main__":
    sys.exit(main())
