"""The configuration: without one that can be read, nothing else can be checked."""

from broker.errors import CodedError
from broker.system.advice import advised_command
from broker.system.findings import Fault, Finding, Level

__all__ = [
    "configuration_problem",
]


UNUSABLE = Fault(
    "configuration_unusable",
    Level.FAIL,
    "The configuration cannot be used: a wrong value or key, or a file that other users can change.",
    "Correct what the sentence names; README.md lists the keys.",
)


def configuration_problem(error: CodedError) -> Finding:
    """Return the finding for an error of reading the configuration."""
    return UNUSABLE.found("configuration", str(error), fix=advised_command(error))
