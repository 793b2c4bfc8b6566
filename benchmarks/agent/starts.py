"""Rows about starts: of the programs, beside an empty one, and of a store with many tombstones."""

import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.agent.options import Options
from benchmarks.agent.store_start import start_ratio
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.ledger_rows import NO_OP
from benchmarks.measuring.report import Row
from broker.app.factories import open_ledger

__all__ = ["programs", "tombstones"]

_EMPTY = "import typer\napp = typer.Typer()\n@app.command()\ndef main() -> None: ...\napp()\n"
_STARTS = 15
_GOALS = (("acm --help", 1.8), ("acm-agent --help", 1.8), ("acm show", 3.5))


def programs(options: Options) -> Row:
    """Processor time of a start of each program, in an installation as `make install` makes it."""
    row = Row("starts")
    with _installed(options.prefix) as programs, tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        url = f"sqlite:///{directory}/ledger.db"
        with open_ledger(url) as ledger:
            command = ledger.add_command("web-01", NO_OP).id
        calls = {
            "empty typer program": [str(programs / "python"), "-c", _EMPTY, "--help"],
            "acm --help": [str(programs / "acm"), "--help"],
            "acm-agent --help": [str(programs / "acm-agent"), "--help"],
            "acm show": [str(programs / "acm"), "show", command, "--ledger", url],
        }
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.scaled(_STARTS)):
            for name, argv in calls.items():
                taken[name].append(_cpu_ms(argv))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    row.figures = {f"{name}, CPU ms": value for name, value in medians.items()}
    row.goals = [
        Goal(f"start of {name}, to an empty typer program", medians[name] / medians["empty typer program"], limit, True)
        for name, limit in _GOALS
    ]
    return row


def tombstones(options: Options) -> Row:
    """The start of a store with as many tombstones as it keeps, beside one with none."""
    return Row("start of a store with 100,000 tombstones", {"ratio to one with none": start_ratio()})


@contextmanager
def _installed(prefix: Path | None) -> Iterator[Path]:
    """Yield the directory of the programs, in a new installation unless there is one at `prefix`."""
    if prefix is not None:
        yield prefix / "bin"
        return
    with tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
        argv = ["sh", "scripts/install.sh", str(Path(sys.executable).parents[1]), f"{directory}/installed"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        yield Path(directory) / "installed" / "bin"


def _cpu_ms(argv: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000
