"""The versions: of acm, Python, SQLite and Mosquitto here, and of the agents."""

import platform
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version

from broker.app.factories import utc_now
from broker.doctor.ledger import with_database
from broker.ledger.agents import all_agents
from broker.ledger.database import Database
from broker.mosquitto.process import MosquittoError, mosquitto_version
from broker.release.versions import InvalidVersion, parse_version
from broker.system.findings import Fault, Finding, Level, ok
from broker.text import counted, some_of

__all__ = [
    "check_agents_versions",
    "check_versions",
]


OLD_MOSQUITTO = Fault(
    "mosquitto_too_old",
    Level.WARN,
    "The installed Mosquitto is older than 2.0, the tested version.",
    "apt-get install mosquitto (2.0 or newer)",
)
AGENTS_NEWER = Fault(
    "agents_newer",
    Level.WARN,
    "Agents run a newer version than this acm, which may not know what they report.",
    "Install the newer version of acm here, and restart the servers.",
)
_CHECK = "versions"
_TESTED = (2, 0)
_SHOWN = 3


def check_versions() -> Iterator[Finding]:
    """Look at what is installed on this machine."""
    ours = f"acm {_our_version()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    try:
        mosquitto = mosquitto_version()
    except MosquittoError:
        yield ok(_CHECK, f"{ours}; Mosquitto is not installed on this machine.")
        return
    sentence = f"{ours}, Mosquitto {'.'.join(map(str, mosquitto))}."
    yield (OLD_MOSQUITTO.found if mosquitto < _TESTED else ok)(_CHECK, sentence)


def check_agents_versions(url: str) -> Iterator[Finding]:
    """Compare the versions in the agents' last statuses with that of this acm."""
    return with_database(_CHECK, url, _of_agents)


def _of_agents(database: Database) -> Iterator[Finding]:
    with database.reading() as connection:
        rows = all_agents(connection, utc_now())
    newer = [row.name for row in rows if row.status is not None and _is_newer(row.status.version)]
    if newer:
        runs = "runs" if len(newer) == 1 else "run"
        found = f"{counted(len(newer), 'agent')} {runs} a newer version than {_our_version()}"
        yield AGENTS_NEWER.found(_CHECK, f"{found}: {some_of(newer, _SHOWN)}.")


def _is_newer(text: str) -> bool:
    try:
        return parse_version(text) > parse_version(_our_version())
    except InvalidVersion:
        return False


def _our_version() -> str:
    return version("agent-command-manager")
