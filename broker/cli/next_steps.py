"""What `acm up` says when everything works: the next commands, as lines for a shell."""

import shlex

from broker.app.broker_directory import LOOPBACK_HOSTS
from broker.app.config import ServerConfig, api_url, enrolment_url
from broker.app.default_directory import default_directory
from broker.app.hosted_api import has_api
from broker.app.machine_directory import MachineDirectory
from broker.mqtt.address import parse_url
from broker.system.files import resolved

__all__ = [
    "down_command",
    "what_is_next",
]


_AGENT = "web-01"


def down_command(machine: MachineDirectory) -> str:
    """Return the command that ends what runs in the directory."""
    return "acm down" if _is_default(machine) else f"acm down --directory {shlex.quote(str(machine.path))}"


def what_is_next(machine: MachineDirectory, config: ServerConfig, agent: str | None) -> str:
    """Return the next steps: an agent on this machine, unless `agent` runs there, a command for it, other agents."""
    state = shlex.quote(str(machine.state_of_agent(_AGENT)))
    enroll = f"acm-agent enroll --server {enrolment_url(config)} --token -"
    lines = [f"All of {machine.path} runs; `{down_command(machine)}` ends it. Next:"]
    if not _is_default(machine):
        lines.append(f"  export ACM_CONFIG={shlex.quote(str(machine.settings))}")
    if agent is None:
        lines.append(f"  acm token create {_AGENT} | {enroll} --agent {_AGENT} --state {state}")
        lines.append(f"  acm-agent run --state {state} &")
    lines.append(f"  acm send {agent or _AGENT} restart-agent --wait")
    if parse_url(config.broker).host in LOOPBACK_HOSTS:
        lines.append("Only this machine is served. For others: acm up --host NAME_OF_THIS_MACHINE --directory NEW_DIR")
    else:
        lines.append("On another machine, with the token that `acm token create NAME` prints here:")
        lines.append(f"  {enroll} --agent NAME --state DIR")
        lines.append("  acm-agent run --state DIR")
    return "\n".join([*lines, *_steps_of_api(config)])


def _steps_of_api(config: ServerConfig) -> list[str]:
    if config.api_is_off:
        return []
    if not has_api():
        return ["The HTTP API is not installed: `make install EXTRA=api` installs it."]
    ca = f" --ca {shlex.quote(config.broker_ca)}" if config.broker_ca and config.api_pair else ""
    add = f"acm context add here --server {api_url(config)}{ca}"
    return [
        "Over its HTTP API (docs/api.md), as from other machines:",
        f"  acm api token create me --role operator | {add}",
        "  acm --context here agents",
    ]


def _is_default(machine: MachineDirectory) -> bool:
    return machine.path == resolved(default_directory())
