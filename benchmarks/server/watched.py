"""A row in which a server that works at its limit is watched: its log, its metrics, and an open page."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import httpx

from benchmarks.measuring.goals import Goal
from benchmarks.measuring.ports import free_port
from benchmarks.measuring.report import Row
from benchmarks.server.burst import Burst, burst, middle
from benchmarks.server.open_page import open_page
from benchmarks.server.options import Options
from benchmarks.server.site import Site

__all__ = ["watched"]

_PAUSE_S = 5.0  # Prometheus scrapes each 15 s or more
_LEAST_RATE = 0.95


def watched(options: Options) -> Row:
    """Commands become due, with and without logs of commands, scraped metrics and an open page."""
    agents, each = options.scaled(1_000), 20
    row = Row(f"{agents:,} agents x {each:,} commands, with logs, metrics and a page")
    alone: list[Burst] = []
    beside: list[Burst] = []
    scrapes: list[int] = []
    looks: list[int] = []
    for _ in range(options.rounds):
        alone.append(burst(agents, each, status_pause_s=options.status_pause_s))
        listen = f"127.0.0.1:{free_port()}"
        scrapes.append(0)
        looks.append(0)
        run = burst(
            agents,
            each,
            status_pause_s=options.status_pause_s,
            metrics=listen,
            beside=partial(_watching, listen, scrapes, looks),
        )
        beside.append(run)
    row.figures = middle(alone).figures("without: ") | middle(beside).figures("watched: ")
    kept = min(run.server_us for run in alone) / min(run.server_us for run in beside)
    row.figures |= {"scrapes, in all": sum(scrapes), "looks at the fleet by the page, in all": sum(looks)}
    row.figures |= {"rate watched, to that without, by processor time": kept}
    row.goals = [
        Goal(f"{row.title}: rate of the server's loop, to that without", kept, _LEAST_RATE),
        Goal(f"{row.title}: runs that were scraped", sum(count > 0 for count in scrapes), options.rounds),
        Goal(f"{row.title}: runs that the page followed", sum(count > 0 for count in looks), options.rounds),
        Goal(f"{row.title}: runs in which all results were acked", sum(it.complete for it in beside), options.rounds),
    ]
    return row


@contextmanager
def _watching(listen: str, scrapes: list[int], looks: list[int], place: Site) -> Iterator[None]:
    with open_page(place, looks), _scraping(listen, scrapes):
        yield


@contextmanager
def _scraping(listen: str, scrapes: list[int]) -> Iterator[None]:
    """Scrape meanwhile; the last of `scrapes` counts. The first scrape, which imports much, is before the block."""
    ended = threading.Event()

    def scrape() -> None:
        httpx.get(f"http://{listen}/metrics", timeout=30, trust_env=False).raise_for_status()

    def scrape_until_the_end() -> None:
        while True:
            scrape()
            scrapes[-1] += 1
            if ended.wait(_PAUSE_S):
                return

    scrape()
    thread = threading.Thread(target=scrape_until_the_end)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
