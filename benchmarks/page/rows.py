"""A row: how soon pages of the API show something with many agents, beside plain statements that read the same."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import httpx
from playwright.sync_api import Browser

from benchmarks.measuring.goals import Goal
from benchmarks.measuring.ports import free_port
from benchmarks.measuring.report import Row
from benchmarks.page.raw import RAW_QUERIES, reading
from benchmarks.page.staged import staged
from benchmarks.server.api_process import api_process, log_in
from benchmarks.server.databases import postgresql
from broker.fleet.models import Role
from tests.support.chromium import chromium

__all__ = ["pages"]

Times = dict[str, float]  # milliseconds by path, medians

_ROUNDS = 15
_IN_BROWSER = 7
_MOST_MS = 300.0
_MOST_RATIO = 2.0  # of the page that reads all agents; the raw queries of the others take less than a request
_FLEET, _LOG_IN = "/", "/login"
# Not `wait_for_function`, which evaluates in the page what its Content-Security-Policy forbids.
_FIRST_PAINT = """() => new Promise((found) => {
  const observer = new PerformanceObserver((list) => {
    const paint = list.getEntriesByName("first-contentful-paint")[0];
    if (paint) found(paint.startTime);
  });
  observer.observe({type: "paint", buffered: true});
})"""


def pages(database: str, agents: int) -> Row:
    """Measure the pages on a ledger of so many agents, in `sqlite` or `postgresql`."""
    row = Row(f"{database}: the page, with {agents:,} agents and {agents * 10:,} ended commands")
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="acm-bench-") as directory,
        _ledger_in(Path(directory), database) as url,
        staged(url, agents) as ledger,
        api_process(url, port, Path(directory) / "api.log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        log_in(http, ledger, Role.ADMIN)
        answers, raw = _interleaved(url, http)
        painted = _painted(http)
    row.figures[f"{_LOG_IN}: first content in Chromium, ms"] = painted.pop(_LOG_IN)
    for path, first in painted.items():
        row.figures |= {
            f"{path}: first content in Chromium, ms": first,
            f"{path}: its answer, ms": answers[path],
            f"{path}: raw queries, ms": raw[path],
            f"{path}: answer, to raw queries": answers[path] / raw[path],
        }
        row.goals.append(Goal(f"{database}: {path}, first content", first, _MOST_MS, True, unit="ms"))
    ratio = answers[_FLEET] / raw[_FLEET]
    row.goals.append(Goal(f"{database}: {_FLEET}, answer to raw queries", ratio, _MOST_RATIO, True))
    return row


def _interleaved(url: str, http: httpx.Client) -> tuple[Times, Times]:
    """Return how long answers take, and raw queries, taken in turn."""
    answers: dict[str, list[float]] = {path: [] for path in RAW_QUERIES}
    raw: dict[str, list[float]] = {path: [] for path in RAW_QUERIES}
    with reading(url) as read:
        for _ in range(_ROUNDS):
            for path, queries in RAW_QUERIES.items():
                raw[path].append(_ms(partial(list, map(read, queries))))
                answers[path].append(_ms(partial(http.get, path)))
    return _medians(answers), _medians(raw)


def _medians(taken: Mapping[str, Sequence[float]]) -> Times:
    return {path: median(its) for path, its in taken.items()}


def _ms(do: Callable[[], object]) -> float:
    began = perf_counter()
    do()
    return (perf_counter() - began) * 1000


def _painted(http: httpx.Client) -> Times:
    """Return when a browser that has kept nothing shows something, also of a page that needs no ledger."""
    taken: dict[str, list[float]] = {path: [] for path in (_LOG_IN, *RAW_QUERIES)}
    with chromium() as browser:
        for _ in range(_IN_BROWSER):
            for path, its in taken.items():
                its.append(_first_paint(browser, http, path))
    return _medians(taken)


def _first_paint(browser: Browser, http: httpx.Client, path: str) -> float:
    address = str(http.base_url)
    context = browser.new_context(base_url=address)
    try:
        context.add_cookies([{"name": name, "value": value, "url": address} for name, value in http.cookies.items()])
        page = context.new_page()
        page.goto(path)
        return float(page.evaluate(_FIRST_PAINT))
    finally:
        context.close()


@contextmanager
def _ledger_in(directory: Path, database: str) -> Iterator[str]:
    if database == "sqlite":
        yield f"sqlite:///{directory}/ledger.db"
        return
    with postgresql() as instance:
        yield instance.new_database()
