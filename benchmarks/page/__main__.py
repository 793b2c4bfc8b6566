"""`make bench-page`: how soon the page shows something. `python -m benchmarks.page --agents 1000`."""

import argparse
import sys
from functools import partial

from benchmarks.measuring.running import prepare_process, run_rows
from benchmarks.page.rows import pages


def main() -> int:
    """Run the rows that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--rows", help="names with commas; by default all")
    parser.add_argument("--agents", type=int, default=10_000, help="in the ledger (10,000)")
    given = parser.parse_args()
    rows = {database: partial(pages, database, given.agents) for database in ("sqlite", "postgresql")}
    prepare_process()
    return run_rows("bench-page", rows, given.rows, {"agents": given.agents})


if __name__ == "__main__":
    sys.exit(main())
