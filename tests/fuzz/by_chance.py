"""Runs one target on mutations of its seeds: `python -m tests.fuzz.by_chance TARGET SECONDS FINDINGS`."""

import hashlib
import resource
import sys
from pathlib import Path
from random import Random
from time import monotonic

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS

_MAX_BYTES = 2 << 30


def main(name: str, seconds: int, findings: Path) -> None:
    """Run until the time is over; an input that makes the target raise is stored in a file and ends the run."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
    random, corpus, end, count = Random(), TARGETS[name].seeds(), monotonic() + seconds, 0
    try:
        while monotonic() < end:
            data = mutated(random, corpus)
            count += 1
            try:
                TARGETS[name].run(data)
            except BaseException:
                findings.mkdir(parents=True, exist_ok=True)
                (findings / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)
                raise
    finally:
        print(f"number_of_executed_units: {count}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
