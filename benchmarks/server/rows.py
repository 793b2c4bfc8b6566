"""The rows of `make bench-server`: each returns figures and goals."""

from collections.abc import Callable

from benchmarks.measuring.goals import Goal
from benchmarks.measuring.limits import insert_us, limits, sign_us
from benchmarks.measuring.report import Row
from benchmarks.server.beside_api import beside_api
from benchmarks.server.burst import Burst, burst, middle, naive_burst
from benchmarks.server.databases import postgresql
from benchmarks.server.flood import flood, overload
from benchmarks.server.options import Options
from benchmarks.server.returning import first_statuses, returning
from benchmarks.server.watched import watched

__all__ = ["ROWS"]

RowFunction = Callable[[Options], Row]


def _against_naive(agents: int, each: int, least: float, reach: float, *, once: bool = False) -> RowFunction:
    def run(options: Options) -> Row:
        ours: list[Burst] = []
        others: list[Burst] = []
        count = options.scaled(agents)
        for _ in range(options.rounds):
            ours.append(burst(count, each, status_pause_s=options.status_pause_s))
            if options.naive:
                others.append(naive_burst(count, each, status_pause_s=options.status_pause_s))
        title = f"{count:,} agents x {each:,} commands"
        row = Row(title, middle(ours).figures())
        if commits := middle(ours).commits:
            per_commit = max(1, count * each // commits)
            row.figures[f"row in SQLite with as many commits ({per_commit} a commit), µs"] = insert_us(per_commit)
        if others:
            row.figures |= middle(others).figures("naive: ")
            ratio = middle(ours).per_s / middle(others).per_s
            row.goals.append(Goal(f"{title}: rate to that of a naive server", ratio, least, reach=reach))
        if once:
            again = max(run.commands_again + run.results_again for run in ours)
            row.goals.append(Goal(f"{title}: sent twice by either side", again, 0, is_ceiling=True))
        row.goals.append(_complete(title, ours))
        return row

    return run


def _on_postgresql(agents: int, each: int) -> RowFunction:
    def run(options: Options) -> Row:
        count = options.scaled(agents)
        runs: dict[str, list[Burst]] = {"SQLite": [], "PostgreSQL": []}
        with postgresql() as instance:
            for _ in range(options.rounds):
                runs["SQLite"].append(burst(count, each, status_pause_s=options.status_pause_s))
                url = instance.new_database()
                runs["PostgreSQL"].append(burst(count, each, url=url, status_pause_s=options.status_pause_s))
        row = Row(f"{count:,} agents x {each:,} commands on PostgreSQL")
        for database, its_runs in runs.items():
            row.figures |= middle(its_runs).figures(f"{database}: ")
        ratio = middle(runs["PostgreSQL"]).per_s / middle(runs["SQLite"]).per_s
        row.goals = [Goal(f"{row.title}: rate to that on SQLite", ratio, 0.6), _complete(row.title, runs["PostgreSQL"])]
        return row

    return run


def _signed(options: Options) -> Row:
    count, each = options.scaled(1_000), 20
    plain: list[Burst] = []
    signed: list[Burst] = []
    for _ in range(options.rounds):
        plain.append(burst(count, each, status_pause_s=options.status_pause_s))
        signed.append(burst(count, each, signed=True, status_pause_s=options.status_pause_s))
    row = Row(f"{count:,} agents x {each:,} commands, signed")
    row.figures = middle(plain).figures("unsigned: ") | middle(signed).figures("signed: ")
    signature = sign_us()
    limit = middle(plain).server_us + 1.2 * signature * middle(signed).frames_a_command
    row.figures |= {"a signature, µs": signature, "limit, µs a command": limit}
    row.goals = [
        Goal(f"{row.title}: CPU to the limit", middle(signed).server_us / limit, 1, is_ceiling=True),
        _complete(row.title, signed),
    ]
    return row


def _complete(title: str, runs: list[Burst]) -> Goal:
    return Goal(f"{title}: runs in which all results were acked", sum(run.complete for run in runs), len(runs))


ROWS: dict[str, RowFunction] = {
    "limits": lambda _: limits(),
    "100x200": _against_naive(100, 200, 7, 10),
    "1000x20": _against_naive(1_000, 20, 7, 10),
    "10000x2": _against_naive(10_000, 2, 4, 6, once=True),
    "returning": returning,
    "first-statuses": first_statuses,
    "postgresql-100x200": _on_postgresql(100, 200),
    "postgresql-1000x20": _on_postgresql(1_000, 20),
    "postgresql-10000x2": _on_postgresql(10_000, 2),
    "signed": _signed,
    "flood": flood,
    "overload": overload,
    "api": beside_api,
    "watched": watched,
}
