"""The self-test of a release on a machine, before it takes over: its libraries load and its command store works."""

import pkgutil
import ssl
import tempfile
import uuid
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from broker.contract.messages import Command, Origin
from consumer.errors import StoreError
from consumer.handlers.built_in import BUILT_IN_TYPES
from consumer.store.opening import open_store

__all__ = [
    "load_all_modules",
    "self_test",
]


def load_all_modules() -> None:
    """Import all of the agent: what it imports late must not be missing only then. Raises ImportError."""
    import consumer

    for module in pkgutil.walk_packages(consumer.__path__, "consumer."):
        if not module.name.endswith(".__main__"):
            import_module(module.name)


def self_test() -> tuple[str, ...]:
    """Return the command types that this release supports.

    Raises StoreError if its store does not work here, and ImportError if a library is missing.
    """
    load_all_modules()
    ssl.create_default_context()
    with tempfile.TemporaryDirectory(prefix="acm-self-test-") as directory:
        _store_and_find(Path(directory))
    return tuple(sorted(BUILT_IN_TYPES))


def _store_and_find(directory: Path) -> None:
    now = datetime.now(UTC)
    command = Command(uuid.uuid4().hex, "self-test", {}, Origin("self-test", "self-test"), now)
    store = open_store(directory, now=lambda: now)
    store.store_command(command, now)
    store.close()
    store = open_store(directory, now=lambda: now)
    try:
        if store.find(command.id) is None:
            raise StoreError(
                "The self-test failed: a stored command was missing after the store was reopened.",
                code="self_test_failed",
            )
    finally:
        store.close()
