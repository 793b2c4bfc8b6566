"""`make bench`: the agent, beside simpler consumers in the same run. `python -m benchmarks.agent --rows latency`."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.agent.core import core
from benchmarks.agent.latency import latency, wake_up
from benchmarks.agent.memory import full_store, idle, waiting_results
from benchmarks.agent.options import Options
from benchmarks.agent.speed import fsyncs, signed, steady, throughput
from benchmarks.agent.starts import programs, tombstones
from benchmarks.measuring.limits import limits
from benchmarks.measuring.report import Row
from benchmarks.measuring.running import prepare_process, run_rows

ROWS: dict[str, Callable[[Options], Row]] = {
    "limits": lambda _: limits(),
    "saturated": throughput,
    "fsyncs": fsyncs,
    "signed": signed,
    "steady": steady,
    "core": core,
    "waiting-results": waiting_results,
    "latency": latency,
    "wake-up": wake_up,
    "idle": idle,
    "full-store": full_store,
    "starts": programs,
    "tombstones": tombstones,
}


def main() -> int:
    """Run the rows that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agent", description=__doc__)
    parser.add_argument("--rows", help=f"names with commas; by default all of {', '.join(ROWS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the number of commands")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each program, interleaved; medians count")
    parser.add_argument("--prefix", type=Path, help="the installation whose starts are measured; by default a new one")
    given = parser.parse_args()
    options = Options(given.scale, given.rounds, given.prefix)
    conditions = {"scale": options.scale, "rounds": options.rounds}
    rows = {name: partial(row, options) for name, row in ROWS.items()}
    prepare_process()
    return run_rows("bench", rows, given.rows, conditions)


if __name__ == "__main__":
    sys.exit(main())
