"""acm: sends commands to agents, shows their outcome, and runs the servers."""

from typing import Annotated

from broker.cli import SERVICES
from broker.cli.exit_codes import exit_code_of
from broker.cli.lazy import LazyCommand, lazy_group
from broker.console.program import root_app, run_app, version_option
from broker.system.entry import run_command_line

__all__ = [
    "app",
    "main",
]

_COMMANDS = lazy_group(
    LazyCommand("up", "broker.cli.up", "Run broker, server with its HTTP API, and enrolment server on this machine."),
    LazyCommand("down", "broker.cli.down", "End what `acm up` runs in the directory."),
    LazyCommand("send", "broker.cli.send", "Add a command for one or more agents to the ledger."),
    LazyCommand("show", "broker.cli.commands", "Show a command with its state and result."),
    LazyCommand(
        "explain",
        "broker.cli.explain",
        "Show every hop of a command with its time, and why an open one waits.",
    ),
    LazyCommand("commands", "broker.cli.commands", "List commands, newest first."),
    LazyCommand("events", "broker.cli.events", "List events, oldest first, or follow them."),
    LazyCommand("cancel", "broker.cli.commands", "Request the cancellation of a command."),
    LazyCommand("retry", "broker.cli.retry", "Send a command again that has ended."),
    LazyCommand("unmatched", "broker.cli.unmatched", "List results that answer no open command."),
    LazyCommand(
        "operation", "broker.cli.operation", "Show and cancel commands that were sent to many agents.", is_group=True
    ),
    LazyCommand(
        "agents", "broker.cli.agents", "List agents with the last status that each has published.", is_group=True
    ),
    LazyCommand("active-responses", "broker.cli.active_responses", "List active responses that are in effect."),
    LazyCommand("group", "broker.cli.group", "Manage groups of agents and their configuration.", is_group=True),
    LazyCommand("types", "broker.cli.types", "List command types, or explain one: its parameters, with examples."),
    LazyCommand("blob", "broker.cli.blob", "Manage files that agents fetch over MQTT.", is_group=True),
    LazyCommand("context", "broker.cli.context", "Name servers elsewhere, and work over their APIs.", is_group=True),
    LazyCommand("completion", "broker.cli.completion", "Print the script that lets a shell complete commands."),
    LazyCommand("prune", "broker.cli.prune", "Remove completed commands and other data that ended long ago."),
    LazyCommand("ledger", "broker.cli.ledger", "Maintain the ledger.", is_group=True),
    LazyCommand("audit", "broker.cli.audit", "Compare agents' audit journals with the ledger.", is_group=True),
    LazyCommand("package", "broker.cli.package", "Build and verify packages for upgrades of agents.", is_group=True),
    LazyCommand("token", "broker.cli.token", "Manage one-time tokens for the enrolment of agents.", is_group=True),
    LazyCommand("enrolment", "broker.cli.enrolment", "List and revoke enrolments of agents.", is_group=True),
    LazyCommand("ca", "broker.cli.ca", "Manage the certificate authority of agents and servers.", is_group=True),
    LazyCommand("keys", "broker.cli.keys", "Manage the keys that sign messages to agents.", is_group=True),
    LazyCommand("broker", "broker.cli.broker", "Configure and run Mosquitto, the MQTT broker.", is_group=True),
    LazyCommand("doctor", "broker.cli.doctor", "Check the installation, and show how to fix what is wrong."),
    LazyCommand("server", "broker.cli.server", "Run the server."),
    LazyCommand("api", "broker.cli.api", "Run the HTTP API, and manage its access tokens.", is_group=True),
    LazyCommand("enroll-server", "broker.cli.enroll_server", "Run the enrolment server."),
)
app = root_app(_COMMANDS)


@app.callback()
def acm(show_version: Annotated[bool, version_option("acm")] = False) -> None:
    """Send commands to a fleet of agents, and know the outcome of each."""


def main() -> None:
    """Run acm; print an expected error as one sentence on stderr, and exit with its exit code."""
    run_command_line("acm", lambda: run_app(app, "acm"), exit_code_of, services=SERVICES)
