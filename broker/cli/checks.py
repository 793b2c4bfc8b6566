"""What acm refuses before it sends a command: secrets on the command line."""

from broker.contract.commands import CommandType, is_secret
from broker.errors import InvalidArgument

__all__ = [
    "check_secrets",
]


def check_secrets(command_type: str, kind: CommandType | None, on_command_line: set[str]) -> None:
    """Raise InvalidArgument for a secret parameter whose value is on the command line."""
    for name in sorted(on_command_line):
        if is_secret(command_type, name, kind.parameters if kind else None):
            raise InvalidArgument(
                f"{name} is secret, and command lines are visible to every user of the machine: "
                f"write {name}=@FILE, or {name}=@/dev/stdin.",
                code="secret_on_command_line",
            )
