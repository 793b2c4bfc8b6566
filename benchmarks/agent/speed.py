"""Rows with as many commands as the agent can process: its rate, signed too, and whether that holds."""

import re
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.agent.driver import Run, driven, saturated
from benchmarks.agent.options import Options
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.limits import insert_us, verify_us
from benchmarks.measuring.report import Row

__all__ = ["fsyncs", "signed", "steady", "throughput"]

_SUBJECTS = ("ours", "naive", "naive_durable", "pass_through")
_COMMANDS = 4_000
_COUNTED = 1_000
_PER_FRAME = 50


def throughput(options: Options) -> Row:
    """The agent beside simpler consumers."""
    count = options.scaled(_COMMANDS)
    runs = _interleaved(options, {name: (name, 1) for name in _SUBJECTS}, count)
    row = Row(f"saturated, {count:,} commands", _figures(runs))
    row.detail = {"rates": {name: [run.per_s for run in its_runs] for name, its_runs in runs.items()}}
    row.goals = [
        Goal("saturated, to naive", _ratio(runs, "ours", "naive"), 6, reach=7),
        Goal("saturated, to naive made durable", _ratio(runs, "ours", "naive_durable"), 12),
        Goal("saturated, to pass-through", _ratio(runs, "ours", "pass_through"), 0.60),
    ]
    return row


def fsyncs(options: Options) -> Row:
    """How often the agent waits for the disk, counted by strace."""
    count = _count_fsyncs() if shutil.which("strace") else None
    row = Row("fsyncs", {"fsyncs in 1,000 commands": count})
    if count:
        per_commit = max(1, _COUNTED // count)
        row.figures[f"row in SQLite with as many commits ({per_commit} a commit), µs"] = insert_us(per_commit)
    row.goals = [Goal("fsyncs in 1,000 commands", count, 12, is_ceiling=True)]
    return row


def signed(options: Options) -> Row:
    """The agent with signed frames beside unsigned ones."""
    count = options.scaled(_COMMANDS)
    kinds = {
        "unsigned": ("ours", 1),
        "signed": ("ours_signed", 1),
        f"unsigned, frames of {_PER_FRAME}": ("ours", _PER_FRAME),
        f"signed, frames of {_PER_FRAME}": ("ours_signed", _PER_FRAME),
    }
    runs = _interleaved(options, kinds, count)
    row = Row(f"signed, {count:,} commands", _figures(runs))
    verification = verify_us()
    limit = 1e6 / _median(runs["unsigned"]) + 1.2 * verification
    row.figures |= {"a verification, µs": verification, "limit, µs a command": limit}
    cost = 1e6 / _median(runs["signed"])
    frames = _ratio(runs, f"signed, frames of {_PER_FRAME}", f"unsigned, frames of {_PER_FRAME}")
    row.goals = [
        Goal("signed: time a command, to unsigned + 1.2 verifications", cost / limit, 1, is_ceiling=True),
        Goal(f"signed, frames of {_PER_FRAME}: to unsigned", frames, 0.9),
    ]
    return row


def steady(options: Options) -> Row:
    """Whether the rate is the same in each round, whatever the number of commands."""
    row = Row("steady")
    for commands in (2_000, 10_000, 50_000):
        count = options.scaled(commands)
        rates = [saturated("ours", count).per_s for _ in range(5)]
        row.figures |= {
            f"{count:,} commands: median/s": statistics.median(rates),
            f"{count:,} commands: slowest/s": min(rates),
        }
        ratio = min(rates) / statistics.median(rates)
        row.goals.append(Goal(f"{count:,} commands: slowest of five rounds, to the median", ratio, 0.8))
    return row


def _interleaved(options: Options, kinds: dict[str, tuple[str, int]], count: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind, (name, per_frame) in kinds.items():
            runs[kind].append(saturated(name, count, per_frame))
    return runs


def _figures(runs: dict[str, list[Run]]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for name, its_runs in runs.items():
        figures[f"{name}: commands/s"] = _median(its_runs)
        figures[f"{name}: CPU, µs a command"] = statistics.median(run.cpu_us for run in its_runs)
    return figures


def _median(runs: list[Run]) -> float:
    return statistics.median(run.per_s for run in runs)


def _ratio(runs: dict[str, list[Run]], one: str, other: str) -> float:
    """Return the median of the rounds' ratios; the two of a round ran next to each other."""
    return statistics.median(a.per_s / b.per_s for a, b in zip(runs[one], runs[other], strict=True))


def _count_fsyncs() -> int:
    with tempfile.NamedTemporaryFile(prefix="acm-strace-") as trace:
        prefix = ("strace", "-D", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", trace.name)
        with driven("ours", _COUNTED, prefix) as (driver, subject):
            driver.fill(_COUNTED)
            before = len(Path(trace.name).read_text().splitlines())
            subject.go()
            driver.listen()
            return len(re.findall(r"f(?:data)?sync\(", "\n".join(Path(trace.name).read_text().splitlines()[before:])))
