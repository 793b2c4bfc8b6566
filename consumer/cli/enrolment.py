"""acm-agent enroll and enrolment: get a certificate from an enrolment server, and show the agent's enrolment."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.console.output import Printer
from broker.console.output_options import with_printer
from broker.system.process import forbid_dumps
from broker.system.questions import ask_secret
from broker.system.text_files import NotText, read_text
from broker.text import rfc3339
from consumer.cli.options import AgentOption, ConfigOption, StateDirectory, StateOption
from consumer.cli.output import titled_facts
from consumer.errors import EnrolmentError

if TYPE_CHECKING:
    from consumer.enrolment.store import Enrolment

__all__ = ["app", "enrolment_json"]


_FROM_STDIN = "-"
_TOKEN_VARIABLE = "ACM_ENROLMENT_TOKEN"  # noqa: S105 - its name
_TIMEOUT_S = 60.0
app = typer.Typer()


@app.command(
    epilog="Example: acm-agent enroll --server https://acm.example:8443 --token - --agent web-01 --state /var/lib/acm"
)
@with_printer()
def enroll(
    printer: Printer,
    server: Annotated[str, typer.Option("--server", help="https://HOST:PORT of the enrolment server.")],
    token: Annotated[
        str,
        typer.Option(
            "--token",
            metavar="-|@FILE",
            help="Where to read the one-time token (default: ACM_ENROLMENT_TOKEN, else stdin).",
        ),
    ] = "",
    config: ConfigOption = None,
    agent: AgentOption = None,
    state: StateOption = None,
) -> None:
    """Get a certificate in the agent's name with a one-time token. Safe to repeat; stop the agent first."""
    from broker.system.logging import configure_logs
    from consumer.config import load_identity
    from consumer.enrolment.enroll import enroll_by_hand, parse_token
    from consumer.system.clock import SystemClock

    configure_logs("warning")
    forbid_dumps()
    name, directory = load_identity(config, {"agent": agent, "state": state and str(state)})
    clock, secret = SystemClock(), parse_token(_token_text(token))
    enrolment = enroll_by_hand(directory, server, secret, name, clock, clock.monotonic() + _TIMEOUT_S)
    _show(printer, enrolment)
    if not printer.for_programs:
        typer.echo(f"Next: acm-agent run --state {directory}")


def _token_text(source: str) -> str:
    from_environment = os.environ.pop(_TOKEN_VARIABLE, "")
    if not source and from_environment:
        return from_environment
    if source.startswith("@"):
        return _read_token_file(source[1:])
    if source not in ("", _FROM_STDIN):
        raise typer.BadParameter(
            "every user of the machine can see a token on a command line: write - and pass it on stdin, or @FILE.",
            param_hint="--token",
        )
    return ask_secret("Token:") if sys.stdin.isatty() else sys.stdin.readline()


def _read_token_file(path: str) -> str:
    try:
        return read_text(Path(path))
    except (OSError, NotText) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EnrolmentError(f"The token in {path} cannot be read: {reason}.", code="token_unreadable") from error


@app.command("enrolment", epilog="Example: acm-agent enrolment --state /var/lib/acm --json")
@with_printer()
def show_enrolment(printer: Printer, state: StateDirectory) -> None:
    """Show the agent's current enrolment; works while it runs."""
    from consumer.enrolment.store import EnrolmentDirectory
    from consumer.store.state_directory import refuse_exposed

    refuse_exposed(state, reading=True)
    current = EnrolmentDirectory(state).current()
    if current is None:
        raise EnrolmentError(f"The agent of {state} is not enrolled; run `acm-agent enroll`.", code="not_enrolled")
    _show(printer, current)


def enrolment_json(enrolment: "Enrolment") -> dict[str, Any]:
    """Return an enrolment as it is printed."""
    grant = enrolment.grant
    return {
        "agent": grant.agent,
        "enrolment_id": grant.enrolment_id,
        "server": grant.server,
        "broker": grant.broker,
        "topic_prefix": grant.topic_prefix,
        "not_after": rfc3339(grant.not_after),
        "renew_at": rfc3339(grant.renew_at.replace(microsecond=0)),
        "expired": grant.not_after <= datetime.now(UTC),
    }


def _show(printer: Printer, enrolment: "Enrolment") -> None:
    members = enrolment_json(enrolment)
    title = f"{members['agent']} is enrolled."
    if members["expired"]:
        title = (
            f"The certificate of {members['agent']} has expired: while the agent runs, it asks the enrolment server to "
            "renew it. If that refuses, enroll with a new token."
        )
    printer.show(members, titled_facts(title, ((name, [str(value)]) for name, value in members.items())))
