"""acm-agent: runs the agent and shows its queue."""

import getpass
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.contract.journal import faults
from broker.contract.messages import JsonObject
from broker.errors import BrokerError, ExposedFileError
from broker.system.logging import configure_logs
from broker.system.process import forbid_dumps
from broker.system.signals import on_signals
from broker.text import counted, plain
from consumer.active_response.allow_list import AllowList
from consumer.active_response.records import Entry, read_pending
from consumer.active_response.responses import DIRECTORY
from consumer.agent import Agent
from consumer.cli.exit_codes import ExitCode
from consumer.config import (
    load_config,
    merge_sources,
    origins,
    read_identity,
    read_sources,
    unused_values,
)
from consumer.enrolment.enroll import enroll_by_hand, read_token
from consumer.enrolment.store import Enrolment, EnrolmentDirectory
from consumer.errors import (
    ActiveResponseError,
    ConfigurationError,
    ConsumerError,
    EnrolmentError,
    HandlerTableError,
    StoreError,
)
from consumer.plugins import load_plug_ins
from consumer.replacement import RESTARTED_BY, replace_process, take_secrets
from consumer.self_test import self_test as test_release
from consumer.settings import AgentConfig
from consumer.store.reader import read_journal, read_queue
from consumer.store.state_directory import refuse_exposed
from consumer.system.clock import SystemClock
from consumer.upgrade.install import install as install_package
from consumer.upgrade.installation import Installation
from consumer.upgrade.watcher import is_watched, watch

__all__ = [
    "app",
    "main",
]


_log = structlog.get_logger(__name__)
_FROM_STDIN = "-"
_TOKEN_VARIABLE = "ACM_ENROLMENT_TOKEN"  # noqa: S105 - its name
_ENROL_TIMEOUT_S = 60.0
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="The agent of the agent command manager.",
)
ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="ACM_AGENT_CONFIG", metavar="FILE", help="TOML configuration file.")
]
AgentOption = Annotated[str | None, typer.Option("--agent", help="The agent's name, also its MQTT client id.")]
BrokerOption = Annotated[str | None, typer.Option("--broker", help="mqtt://HOST:PORT")]
StateOption = Annotated[Path | None, typer.Option("--state", help="State directory, used by this agent alone.")]
UnsignedOption = Annotated[
    bool | None, typer.Option("--accept-unsigned", help="Also run commands that any MQTT client sent.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command(epilog="Example: acm-agent run --agent web-01 --broker mqtt://127.0.0.1:1883 --state /var/lib/acm")
def run(
    config: ConfigOption = None,
    agent: AgentOption = None,
    broker: BrokerOption = None,
    state: StateOption = None,
    accept_unsigned: UnsignedOption = None,
) -> None:
    """Run the agent until it is told to end (TERM or INT)."""
    flags = {
        "agent": agent,
        "broker": broker,
        "state": state and str(state),
        "accept_unsigned": accept_unsigned,
    }
    sources = read_sources(config, flags)
    settings = merge_sources(sources)
    configure_logs(settings.log_level)
    for name in unused_values(sources):
        _log.warning("configured_value_not_used", name=name, decided_by="enrolment")
    _refuse_exposed_release(settings)
    secrets = take_secrets()
    watched = is_watched(settings, sys.argv[1:], secrets)
    restarted_by = os.environ.pop(RESTARTED_BY, None)
    restarting = Agent(settings, plug_ins=load_plug_ins(), origins=origins(sources), restarted_by=restarted_by)
    with on_signals(restarting.stop):
        replacement = restarting.run()
    if replacement is not None and not watched and not restarting.told_to_stop:
        replace_process(replacement, secrets)


def _refuse_exposed_release(settings: AgentConfig) -> None:
    if settings.upgrade.root is not None:
        Installation(Path(settings.upgrade.root)).refuse_exposed()


@app.command(epilog="Example: acm-agent queue --state /var/lib/acm --json")
def queue(
    state: Annotated[Path, typer.Option("--state", envvar="ACM_STATE", help="State directory of the agent.")],
    as_json: JsonOption = False,
) -> None:
    """Show the commands that the agent holds; works while it runs."""
    refuse_exposed(state, reading=True)
    rows = [
        {
            "id": stored.command.id,
            "type": stored.command.type,
            "state": str(stored.state),
            "received_at": stored.received_at.isoformat(),
            "outcome": str(stored.result.outcome) if stored.result else None,
        }
        for stored in read_queue(state)
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("id", "type", "state", "received", "outcome", title=counted(len(rows), "command"))
    for row in rows:
        words = (row["id"], row["type"], row["state"], row["received_at"], row["outcome"])
        table.add_row(*(Text(plain(word or "", kept="")) for word in words))
    Console().print(table)


@app.command(epilog="Example: acm-agent audit --state /var/lib/acm")
def audit(
    state: Annotated[Path, typer.Option("--state", envvar="ACM_STATE", help="State directory of the agent.")],
    as_json: JsonOption = False,
) -> None:
    """Say where the audit journal ends, and whether it is one chain; works while the agent runs."""
    refuse_exposed(state, reading=True)
    journal = read_journal(state)
    fault = next(faults(journal.anchor, journal.head, journal.pages), None)
    head = {"number": journal.head.number, "hash": journal.head.hash, "first": journal.anchor.number + 1}
    if as_json:
        typer.echo(json.dumps({**head, "fault": fault.reason if fault else None}))
    else:
        typer.echo(f"The journal goes from number {head['first']} to {head['number']}, with the hash {head['hash']}.")
    if fault:
        raise StoreError(f"The journal is not one chain: {fault.reason}.")


@app.command("active-responses", epilog="Example: acm-agent active-responses --state /var/lib/acm --json")
def active_responses(
    state: Annotated[Path, typer.Option("--state", envvar="ACM_STATE", help="State directory of the agent.")],
    as_json: JsonOption = False,
) -> None:
    """Show what active responses did that will be taken back; works while the agent runs."""
    if not state.is_dir():
        raise StoreError(f"The state directory {state} is not there.")
    refuse_exposed(state, reading=True)
    entries = read_pending(state / DIRECTORY)
    if as_json:
        typer.echo(json.dumps([_pending_json(entry) for entry in entries]))
        return
    title = counted(len(entries), "pending reversal")
    table = Table("script", "keys", "reverses at (UTC)", "failed", "command", title=title)
    for row in map(_pending_json, entries):
        failed = f"{row['attempts']}: {row['failure']}" if row["attempts"] else ""
        words = (row["script"], ", ".join(row["keys"]), row["reverses_at"], failed, row["command_id"])
        table.add_row(*(Text(plain(word, kept="")) for word in words))
    Console().print(table)


def _pending_json(entry: Entry) -> JsonObject:
    reversal = entry.reversal
    assert reversal is not None
    return {
        "script": entry.script,
        "keys": list(entry.keys),
        "reverses_at": f"{reversal.due_at:%Y-%m-%dT%H:%M:%SZ}",
        "confirmed": entry.confirmed,
        "offence": entry.offence,
        "attempts": reversal.attempts,
        "failure": reversal.failure,
        "command_id": entry.command_id,
    }


@app.command(
    epilog="Example: acm-agent enroll --server https://acm.example:8443 --token - --agent web-01 --state /var/lib/acm"
)
def enroll(
    server: Annotated[str, typer.Option("--server", help="https://HOST:PORT of the enrolment server.")],
    token: Annotated[
        str,
        typer.Option(
            "--token",
            metavar="-|@FILE",
            help="Where the one-time token is. If not said: ACM_ENROLMENT_TOKEN, else stdin.",
        ),
    ] = "",
    config: ConfigOption = None,
    agent: AgentOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Get a certificate in the agent's name by a one-time token. Safe to repeat; the agent must not be running."""
    configure_logs("warning")
    forbid_dumps()
    name, directory = read_identity(config, {"agent": agent, "state": state and str(state)})
    clock, given = SystemClock(), read_token(_token_text(token))
    enrolment = enroll_by_hand(directory, server, given, name, clock, clock.monotonic() + _ENROL_TIMEOUT_S)
    _show_enrolment(enrolment, as_json, f"{name} is enrolled.")
    if not as_json:
        typer.echo(f"Next: acm-agent run --state {directory}")


def _token_text(where: str) -> str:
    from_environment = os.environ.pop(_TOKEN_VARIABLE, "")
    if not where and from_environment:
        return from_environment
    if where.startswith("@"):
        return _read_token_file(where[1:])
    if where not in ("", _FROM_STDIN):
        raise typer.BadParameter(
            "a token on a command line is seen by every user of the machine: write - and give it on stdin, or @FILE.",
            param_hint="--token",
        )
    return getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline()


def _read_token_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EnrolmentError(f"The token in {path} cannot be read: {error}.") from error


@app.command(epilog="Example: acm-agent enrolment --state /var/lib/acm --json")
def enrolment(
    state: Annotated[Path, typer.Option("--state", envvar="ACM_STATE", help="State directory of the agent.")],
    as_json: JsonOption = False,
) -> None:
    """Show the enrolment that the agent lives by; works while it runs."""
    refuse_exposed(state, reading=True)
    found = EnrolmentDirectory(state).current()
    if found is None:
        raise EnrolmentError(f"The agent of {state} is not enrolled; `acm-agent enroll` does that.")
    _show_enrolment(found, as_json, f"{found.grant.agent} is enrolled.")


def _show_enrolment(enrolment: Enrolment, as_json: bool, title: str) -> None:
    grant = enrolment.grant
    members = {
        "agent": grant.agent,
        "enrolment_id": grant.enrolment_id,
        "server": grant.server,
        "broker": grant.broker,
        "topic_prefix": grant.topic_prefix,
        "not_after": grant.not_after.isoformat().replace("+00:00", "Z"),
        "renew_at": grant.renew_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    if as_json:
        typer.echo(json.dumps(members))
        return
    typer.echo(title)
    for name, value in members.items():
        typer.echo(plain(f"  {name:<14}{value}"))


@app.command("check-config", epilog="Example: acm-agent check-config --config agent.toml")
def check_config(
    config: ConfigOption = None,
    agent: AgentOption = None,
    broker: BrokerOption = None,
    state: StateOption = None,
) -> None:
    """Say whether the configuration can be used, and the plug-ins that are installed."""
    settings: AgentConfig = load_config(config, {"agent": agent, "broker": broker, "state": state and str(state)})
    if settings.active_response.directory:
        AllowList.load(settings.active_response)
    _refuse_exposed_release(settings)
    plug_ins = load_plug_ins()
    if plug_ins.problem:
        raise HandlerTableError(plug_ins.problem)
    typer.echo(f"The configuration of {settings.agent} is good.")
    for handler in plug_ins.handlers:
        typer.echo(f"A plug-in brings {handler.command_type}{' in place of ours' if handler.replaces else ''}.")


@app.command(epilog="Example: acm-agent install agent-1.4.2-linux-x86_64.tar.gz --root /opt/acm --public-key RWQ...")
def install(
    package: Annotated[Path, typer.Argument(metavar="FILE", help="Package that `acm package build` made.")],
    root: Annotated[Path, typer.Option("--root", help="Directory for the agent's releases, used by this agent alone.")],
    public_key: Annotated[
        list[str], typer.Option("--public-key", metavar="KEY", help="Of minisign, RW...; may be given several times.")
    ],
) -> None:
    """Install an agent that can upgrade itself."""
    installed = install_package(package, root.absolute(), public_key)
    typer.echo(f"Version {installed.version} is installed; start it by {root.absolute()}/acm-agent run.")
    typer.echo(f"Its configuration needs:\n\n[upgrade]\nroot = {json.dumps(str(root.absolute()))}")
    typer.echo(f"public_keys = {json.dumps(public_key)}")


@app.command("self-test", epilog="Example: acm-agent self-test")
def self_test() -> None:
    """Say whether this release works on this machine; an upgrade asks it before it lets it take over."""
    types = test_release()
    typer.echo(f"Version {version('agent-command-manager')} works here; it supports {', '.join(types)}.")


@app.command("watch-upgrade", hidden=True)
def watch_upgrade(
    root: Annotated[Path, typer.Option("--root", help="Directory of the installation.")],
    arguments: Annotated[list[str], typer.Argument(help="What the agent was started with.")],
) -> None:
    """Watch a release on trial; the launcher calls it."""
    configure_logs("info")
    forbid_dumps()
    watch(root, arguments)


def _code_for(error: ConsumerError | BrokerError) -> ExitCode:
    if isinstance(error, ConfigurationError | ActiveResponseError | ExposedFileError):
        return ExitCode.CONFIGURATION
    return ExitCode.STATE_DIRECTORY if isinstance(error, StoreError) else ExitCode.FAILURE


def main() -> None:
    """Run acm-agent; every error of ours becomes one sentence on stderr and a named exit code."""
    try:
        app()
    except (ConsumerError, BrokerError) as error:
        typer.echo(plain(f"acm-agent: {error}"), err=True)
        sys.exit(_code_for(error))
