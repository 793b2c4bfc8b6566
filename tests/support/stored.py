"""What a command store holds, read through its port."""

import sys
from datetime import datetime

from consumer.ports import CommandStore, StoredCommand


def all_commands(store: CommandStore) -> list[StoredCommand]:
    """Return every live command, in order of arrival."""
    found = [*store.get_next_commands(sys.maxsize), *store.in_processing(), *store.with_results()]
    return sorted(found, key=lambda stored: stored.key)


def tidy(store: CommandStore, now: datetime) -> None:
    """Tidy the store until nothing is left to do."""
    while store.tidy(now):
        pass
