"""Metrics as Prometheus reads them from a program."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Scraped", "answers", "parsed", "scrape"]


@dataclass(frozen=True)
class Scraped:
    """A metric that was exposed: its type, its HELP, and its samples by name and labels."""

    kind: str
    help: str
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, **labels: str) -> float:
        """Return the value with these labels."""
        (found,) = [it for (_, its), it in self.samples.items() if its == frozenset(labels.items())]
        return found


def scrape(address: str) -> dict[str, Scraped]:
    """Return the metrics that are served at HOST:PORT, by their names as they are written in queries."""
    answer = httpx.get(f"http://{address}/metrics", timeout=30, trust_env=False)
    answer.raise_for_status()
    return parsed(answer.text)


def answers(address: str) -> bool:
    """Whether metrics are served there."""
    try:
        return bool(scrape(address))
    except httpx.TransportError:
        return False


def parsed(text: str) -> dict[str, Scraped]:
    """Return the metrics in a text, by their names as they are written in queries."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        samples = {(it.name, frozenset(it.labels.items())): it.value for it in family.samples}
        found[name] = Scraped(family.type, family.documentation, samples)
    return found
