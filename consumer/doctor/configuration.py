"""The agent's configuration: whether `acm-agent run` takes it, and what it lacks on this machine."""

from collections.abc import Iterator

from broker.errors import ExposedFileError
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok
from consumer.doctor.patient import Patient
from consumer.doctor.shortcomings import shortcomings
from consumer.errors import ConsumerError
from consumer.plugins import load_plug_ins

__all__ = ["check_agent_configuration", "check_plug_ins"]


REFUSED = Fault(
    "agent_configuration_refused",
    Level.FAIL,
    "The agent's configuration cannot be used, so the agent does not start.",
    "Correct what the sentence names, then: acm-agent check-config --config FILE",
)
LACKS = Fault(
    "agent_configuration_lacks",
    Level.WARN,
    "What the configuration names is missing on this machine, or refused, so a part of the agent will not work.",
    "Correct the key that the sentence names, or install what is missing.",
)
PLUG_IN = Fault(
    "agent_plug_in_broken",
    Level.WARN,
    "An installed plug-in cannot be used; its commands end with `unsupported`.",
    "Repair or remove the package that the sentence names, then restart the agent.",
)
_CHECK = "configuration"
# These are about an agent that is not enrolled, which the check of the enrolment reports.
_OF_ENROLMENT = {"agent_missing", "broker_missing"}


def check_agent_configuration(patient: Patient) -> Iterator[Finding]:
    """Report why the configuration cannot be used, or what it lacks."""
    error, config = patient.config_error, patient.config
    if error is not None and (isinstance(error, ExposedFileError) or error.code in _OF_ENROLMENT):
        yield NOT_CHECKED.found(_CHECK, "Not checked: see the enrolment and the permissions.")
    elif error is not None:
        yield REFUSED.found(_CHECK, str(error))
    elif config is not None:
        try:
            lacking = list(shortcomings(config))
        except ConsumerError as refused:
            lacking = [str(refused)]
        yield from (LACKS.found(_CHECK, sentence) for sentence in lacking)
        if not lacking:
            yield ok(_CHECK, f"The configuration of {config.agent} can be used.")


def check_plug_ins() -> Iterator[Finding]:
    """Load the installed plug-ins."""
    plug_ins = load_plug_ins()
    if plug_ins.problem:
        yield PLUG_IN.found(_CHECK, plug_ins.problem)
