"""acm-agent doctor: finds out what is wrong with the agent on this machine, and how to fix it."""

import sys

import typer

from broker.console.output import Printer
from broker.console.output_options import with_printer
from consumer.cli.options import (
    AgentOption,
    BrokerOption,
    ConfigOption,
    StateOption,
    UnsignedOption,
    agent_flags,
)

__all__ = ["app"]


_LIMIT_S = 20.0
app = typer.Typer()


@app.command(epilog="Example: acm-agent doctor --state /var/lib/acm --json")
@with_printer()
def doctor(
    printer: Printer,
    config: ConfigOption = None,
    agent: AgentOption = None,
    broker: BrokerOption = None,
    state: StateOption = None,
    accept_unsigned: UnsignedOption = None,
) -> None:
    """Check the agent on this machine, its connections and its files, and show how to fix what is wrong.

    It takes the options of `run`, changes nothing, and ends within half a minute whatever hangs. Run it as the agent's
    user. The exit code is 10 if anything is FAIL.
    """
    from broker.console.views import findings_view
    from broker.system.checkup import examine
    from broker.system.findings import raise_if_failed
    from broker.system.logging import configure_logs
    from consumer.doctor.agent_checks import agent_checks
    from consumer.doctor.patient import patient_of
    from consumer.system.clock import SystemClock

    configure_logs("critical")
    patient = patient_of(config, agent_flags(agent, broker, state, accept_unsigned))
    findings = list(examine(agent_checks(patient, SystemClock()), _LIMIT_S))
    printer.show([finding.as_json() for finding in findings], findings_view(findings))
    sys.stdout.flush()  # so that an output that cannot be written is the error that is reported
    raise_if_failed(findings)
