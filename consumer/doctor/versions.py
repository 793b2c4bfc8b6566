"""The versions: of what is installed here, and of what runs."""

import platform
import sqlite3
import ssl
from collections.abc import Iterator
from importlib.metadata import version

from broker.system.findings import Fault, Finding, Level, ok
from consumer.doctor.patient import Patient
from consumer.self_test import load_all_modules

__all__ = ["check_agents_versions_here"]


OTHER_RUNS = Fault(
    "agent_runs_other_version",
    Level.WARN,
    "The running agent has another version than this acm-agent, as after an installation without a restart.",
    "systemctl restart acm-agent (or call the acm-agent of the installation that runs)",
)
BROKEN = Fault(
    "agent_installation_broken",
    Level.FAIL,
    "A module or library of the agent is missing, so it cannot restart.",
    "Install the agent again, by `make install` or from its package.",
)
_CHECK = "versions"


def check_agents_versions_here(patient: Patient) -> Iterator[Finding]:
    """Import all of the agent, and compare its version with that of the process that runs."""
    ours = version("agent-command-manager")
    try:
        load_all_modules()
    except ImportError as error:
        yield BROKEN.found(_CHECK, f"The installation of {ours} is not complete: {error}.")
    libraries = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {ssl.OPENSSL_VERSION}"
    yield ok(_CHECK, f"acm-agent {ours}, {libraries}.")
    record = patient.record
    if record is not None and record.version != ours:
        yield OTHER_RUNS.found(_CHECK, f"The running agent has version {record.version}, this acm-agent {ours}.")
