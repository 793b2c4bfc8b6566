"""The files and directories that a configuration names."""

from pathlib import Path

from broker.app.config import ServerConfig
from broker.app.credentials import BROKER_PEM, enrolment_server_pair, signing_keys_path
from broker.ledger.location import ledger_url, sqlite_file

__all__ = [
    "configured_directories",
    "configured_keys",
    "is_there",
    "ledger_file",
]


def is_there(path: Path) -> bool:
    """Return whether something is at a path; True if this user may not look, so that reading it reports that."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def ledger_file(config: ServerConfig) -> Path | None:
    """Return the file of a ledger in SQLite; raises LedgerUrlError."""
    return sqlite_file(ledger_url(config.ledger))


def configured_keys(config: ServerConfig) -> list[Path]:
    """Return the files of private keys that exist, other than those of the authority and the signing keys."""
    paths = [enrolment_server_pair(config)[1]]
    if config.api_pair is not None:
        paths.append(config.api_pair[1])
    if config.broker_tls is not None:
        paths += [config.broker_tls.key, config.broker_tls.ca.with_name(BROKER_PEM)]
    return [path for path in dict.fromkeys(paths) if is_there(path)]


def configured_directories(config: ServerConfig) -> list[Path]:
    """Return the directories that the servers write to, as far as they exist; raises LedgerUrlError."""
    file = ledger_file(config)
    paths = [Path(config.ca), signing_keys_path(config)]
    paths += [path.parent for path in (file, config.crl and Path(config.crl)) if path]
    paths += [config.broker_tls.ca.parent] if config.broker_tls is not None else []
    return [path for path in dict.fromkeys(paths) if is_there(path)]
