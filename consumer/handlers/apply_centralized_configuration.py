"""apply-centralized-configuration: activate another generation of the configuration, or keep the old one."""

from broker.contract.commands.apply_centralized_configuration import ApplyCentralizedConfiguration
from broker.contract.messages import Command
from consumer.configuration.apply import ConfigurationUpdate
from consumer.handler import Context, Handler, Interruption, Result
from consumer.ports import StoredCommand
from consumer.settings import AgentConfig

__all__ = [
    "handler",
]


def handler(config: AgentConfig) -> Handler[ApplyCentralizedConfiguration]:
    """Return the handler for an agent with this configuration."""

    def execute(command: Command, parameters: ApplyCentralizedConfiguration, context: Context) -> Result:
        return ConfigurationUpdate(command, context, config).apply(parameters)

    def probe(stored: StoredCommand, context: Context) -> Result:
        return ConfigurationUpdate(stored.command, context, config).resume()

    return Handler("apply-centralized-configuration", Interruption.PROBE, ApplyCentralizedConfiguration, execute, probe)
