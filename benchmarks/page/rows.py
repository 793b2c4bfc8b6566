"""A row: how soon pages of the API show something with many agents, beside plain statements that read the same."""

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
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
from benchmarks.server.databases import postgresql
from benchmarks.server.site import wait_until
from broker.access.access_tokens import AccessTokenStore
from broker.fleet.models import Principal, Role
from broker.ledger.ledger import Ledger
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
    with _new_ledger(database) as url, staged(url, agents) as ledger, _api(url) as address:
        cookie = _logged_in(ledger, address)
        answers, raw = _interleaved(url, address, cookie)
        painted = _painted(address, cookie)
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


def _interleaved(url: str, address: str, cookie: str) -> tuple[Times, Times]:
    """Return how long answers take, and raw queries, taken in turn."""
    answers: dict[str, list[float]] = {path: [] for path in RAW_QUERIES}
    raw: dict[str, list[float]] = {path: [] for path in RAW_QUERIES}
    with reading(url) as read, httpx.Client(base_url=address, headers={"Cookie": cookie}, trust_env=False) as http:
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


def _painted(address: str, cookie: str) -> Times:
    """Return when a browser that has kept nothing shows something, also of a page that needs no ledger."""
    taken: dict[str, list[float]] = {path: [] for path in (_LOG_IN, *RAW_QUERIES)}
    with chromium() as browser:
        for _ in range(_IN_BROWSER):
            for path, its in taken.items():
                its.append(_first_paint(browser, address + path, cookie))
    return _medians(taken)


def _first_paint(browser: Browser, url: str, cookie: str) -> float:
    name, _, value = cookie.partition("=")
    context = browser.new_context()
    try:
        context.add_cookies([{"name": name, "value": value, "url": url}])
        page = context.new_page()
        page.goto(url)
        return float(page.evaluate(_FIRST_PAINT))
    finally:
        context.close()


def _logged_in(ledger: Ledger, address: str) -> str:
    """Return the cookie of a session."""
    tokens = AccessTokenStore(ledger.database, now=ledger.now)
    _, token = tokens.add(Principal("bench", Role.ADMIN), timedelta(days=1), "bench")
    form = {"token": token, "next": "/"}
    answer = httpx.post(f"{address}/login", data=form, headers={"Origin": address}, trust_env=False)
    ((name, value),) = answer.cookies.items()
    return f"{name}={value}"


@contextmanager
def _new_ledger(database: str) -> Iterator[str]:
    if database == "sqlite":
        with tempfile.TemporaryDirectory(prefix="acm-bench-") as directory:
            yield f"sqlite:///{directory}/ledger.db"
        return
    with postgresql() as instance:
        yield instance.new_database()


@contextmanager
def _api(url: str) -> Iterator[str]:
    """Run `acm api` on a ledger, and yield its address."""
    port = free_port()
    argv = [str(Path(sys.executable).with_name("acm")), "api", "--listen", f"127.0.0.1:{port}", "--ledger", url]
    with tempfile.TemporaryFile() as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: _listens(port), "the API to listen")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
