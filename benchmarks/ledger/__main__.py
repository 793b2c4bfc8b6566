"""`make bench-ledger`: what the ledger's size costs. `python -m benchmarks.ledger --sizes 10000,100000`."""

import argparse
import sys
from collections.abc import Callable
from functools import partial

from benchmarks.ledger.growth import growth
from benchmarks.ledger.migration import migration
from benchmarks.measuring.limits import limits
from benchmarks.measuring.report import Row
from benchmarks.measuring.running import prepare_process, run_rows

_SIZES = "10000,100000,1000000,10000000"


def main() -> int:
    """Run the rows that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--rows", help="names with commas; by default all")
    parser.add_argument(
        "--sizes", default=_SIZES, help=f"numbers of finished commands; the last one needs 20 GB of disk ({_SIZES})"
    )
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    rows: dict[str, Callable[[], Row]] = {
        "limits": limits,
        "sqlite": partial(growth, "sqlite", sizes),
        "postgresql": partial(growth, "postgresql", sizes),
        "migration": partial(migration, min(sizes[-1], 1_000_000)),
    }
    prepare_process()
    return run_rows("bench-ledger", rows, given.rows, {"sizes": sizes})


if __name__ == "__main__":
    sys.exit(main())
