"""What the programs of the server's side expose as metrics, beside what they count."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from time import monotonic

from broker.ledger.database import Database
from broker.metrics.common import CERTIFICATE_EXPIRY, build_info
from broker.metrics.kept import kept
from broker.metrics.values import Family, Kind, Metric, Source, gauge
from broker.pki.revocation_list import end_of_lists
from broker.pki.server_certificates import CertificateFile

__all__ = [
    "of_certificates",
    "of_commits",
    "own_version",
]


COMMITS = Metric(
    "acm_ledger_commits_total",
    Kind.COUNTER,
    "Transactions of this process that have written to the ledger; SQLite syncs its file once for each.",
)
LIST_EXPIRY = Metric(
    "acm_revocation_list_expiry_timestamp_seconds",
    Kind.GAUGE,
    "When the revocation list expires, in seconds since 1970; the broker refuses every agent then.",
    ("file",),
)


def own_version() -> Source:
    """Return the source of the version of the program."""
    return build_info(version("agent-command-manager"))


def of_commits(database: Database) -> Source:
    """Return the source of metrics of a database's transactions."""
    return lambda: [Family(COMMITS, {(): database.commits})]


def of_certificates(files: Sequence[CertificateFile], revocation_list: Path) -> Source:
    """Return the source of the ends of certificates and of the revocation list, of those files that can be read."""

    def families() -> Iterator[Family]:
        read = ((file.path.name, file.read()) for file in files)
        ends: dict[tuple[str, ...], float] = {
            (name,): it.not_valid_after_utc.timestamp() for name, it in read if it is not None
        }
        yield gauge(CERTIFICATE_EXPIRY, ends)
        with suppress(OSError, ValueError):
            end = end_of_lists(revocation_list.read_bytes())
            if end is not None:
                yield gauge(LIST_EXPIRY, {(revocation_list.name,): end.timestamp()})

    return kept(families, monotonic)
