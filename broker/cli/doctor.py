"""acm doctor: finds out what is wrong with an installation, and how to fix it."""

import sys

import typer

from broker.cli.session import LEDGER, Session, with_session
from broker.console.views import findings_view
from broker.doctor.configuration import configuration_problem
from broker.doctor.server_checks import server_checks
from broker.errors import CodedError
from broker.system.checkup import examine
from broker.system.findings import Finding, raise_if_failed

__all__ = [
    "app",
]


_LIMIT_S = 20.0
app = typer.Typer()


@app.command(epilog="Example: acm doctor --config /etc/acm/server.toml --json")
@with_session(LEDGER, over_api=True, only_reads=True)
def doctor(session: Session) -> None:
    """Check the installation, and show how to fix what is wrong.

    Checks ledger, server, broker, certificates and this machine, and tries what the broker must refuse. It changes
    nothing, and ends within half a minute, also if a part hangs. Run it as the user of the server, or over the API,
    which checks its own machine. The exit code is 10 if anything is FAIL.
    """
    findings = _findings(session)
    session.show([finding.as_json() for finding in findings], findings_view(findings))
    sys.stdout.flush()  # so that an output that cannot be written is the error that is reported
    raise_if_failed(findings)


def _findings(session: Session) -> list[Finding]:
    if session.is_over_api:
        found = session.diagnosis().findings
        return [Finding(it.check, it.level, it.code, it.found, it.fix) for it in found]
    try:
        checks = server_checks(session.config)
    except CodedError as error:
        return [configuration_problem(error)]
    return list(examine(checks, _LIMIT_S))
