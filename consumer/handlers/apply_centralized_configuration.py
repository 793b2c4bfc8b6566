"""apply-centralized-configuration: another generation of the configuration becomes active, or the old one stays so."""

from broker.contract.commands.apply_centralized_configuration import ApplyCentralizedConfiguration
from broker.contract.messages import Command
from consumer.configuration import apply as application
from consumer.handler import Context, Handler, Interruption, Result
from consumer.ports import StoredCommand

__all__ = [
    "HANDLER",
]


def _execute(command: Command, parameters: ApplyCentralizedConfiguration, context: Context) -> Result:
    return application.Application(command, context).apply(parameters)


def _probe(stored: StoredCommand, context: Context) -> Result:
    return application.Application(stored.command, context).resume()


HANDLER = Handler(
    "apply-centralized-configuration", Interruption.PROBE, ApplyCentralizedConfiguration, _execute, _probe
)
