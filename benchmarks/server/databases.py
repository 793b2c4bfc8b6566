"""Real databases for a benchmark: PostgreSQL and PgBouncer of the tests, with commits that reach the disk."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.postgresql import PgBouncer, PostgreSQL

__all__ = ["POOLED", "ledgers", "postgresql"]

POOLED = "PgBouncer"


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Run an instance; scripts/postgresql.sh installs its programs."""
    instance = PostgreSQL(is_durable=True)
    try:
        yield instance
    finally:
        instance.remove()


def ledgers() -> Iterator[tuple[str, str | None]]:
    """Yield the name of each kind of database, and the URL of an empty one; None is a new file of SQLite."""
    yield "SQLite", None
    with postgresql() as instance:
        yield "PostgreSQL", instance.new_database()
        pooler = PgBouncer(instance)
        try:
            yield POOLED, pooler.pooled(instance.new_database())
        finally:
            pooler.remove()
