"""A short deterministic run of the fuzzer, and the findings of long runs."""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS

FINDINGS = sorted(path for path in (Path(__file__).parent / "findings").glob("*/*") if path.is_file())


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_bytes_raise_only_the_declared_error(name: str) -> None:
    chance, target = Random(name), TARGETS[name]
    corpus = target.seeds()
    for data in (b"", *corpus):
        target.run(data)
    for number in range(target.tries):
        data = mutated(chance, corpus)
        try:
            target.run(data)
        except Exception as error:
            pytest.fail(f"input {number}, {data[:2000]!r}, gives {type(error).__name__}: {error}")


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: f"{path.parent.name}/{path.name[:20]}")
def test_past_finding_stays_fixed(path: Path) -> None:
    TARGETS[path.parent.name].run(path.read_bytes())
