"""acm on a ledger, and over the API of the same ledger."""

from datetime import UTC, datetime
from time import monotonic

from broker.cli.main import app
from tests.support.cli import Called, called

__all__ = ["PLACES", "TYPES", "MachineClock", "Place"]

PLACES = ("ledger", "api")
TYPES = ("restart-agent", "brew")


class MachineClock:
    """The clock of this machine, which acm on the ledger has, too."""

    monotonic = staticmethod(monotonic)

    @staticmethod
    def now() -> datetime:
        return datetime.now(UTC)


class Place:
    """Calls acm at one place."""

    def __init__(self, **environment: str) -> None:
        none = dict.fromkeys(("ACM_LEDGER", "ACM_CONFIG", "ACM_SERVER", "ACM_CONTEXT", "ACM_TOKEN"))
        self.environment: dict[str, str | None] = {**none, "COLUMNS": "200", **environment}

    def acm(self, *words: str) -> Called:
        return called(app, *words, environment=self.environment)
