"""One open page, as a browser has it: it follows the events, and loads the fleet again when something has happened."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import httpx

from benchmarks.measuring.ports import free_port
from benchmarks.server.api_process import api_process, log_in
from benchmarks.server.site import Site
from broker.fleet.models import Role

__all__ = ["open_page"]

_LEAST_BETWEEN_S = 2.0  # as broker/page/static/live.js has it
_TIMEOUT_S = 30.0


@contextmanager
def open_page(place: Site, looks: list[int]) -> Iterator[None]:
    """Keep the page of the fleet open meanwhile, and count in the last of `looks` how often it was loaded again."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=address, timeout=_TIMEOUT_S, trust_env=False) as browser:
        with api_process(place.url, port, place.directory / "api.log"):
            with place.ledger() as ledger:
                log_in(browser, ledger, Role.VIEWER)
            thread = threading.Thread(target=_follow, args=(browser, looks))
            thread.start()
            yield
        thread.join()


def _follow(browser: httpx.Client, looks: list[int]) -> None:
    """Follow the events until the API ends."""
    looked_at = 0.0
    with suppress(httpx.TransportError), browser.stream("GET", "/live") as stream:
        for line in stream.iter_lines():
            if line.startswith("event:") and monotonic() - looked_at > _LEAST_BETWEEN_S:
                browser.get("/").raise_for_status()
                looked_at = monotonic()
                looks[-1] += 1
