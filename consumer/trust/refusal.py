"""The reason for refusing a message or a command."""

from dataclasses import dataclass

__all__ = ["Refusal"]


@dataclass(frozen=True)
class Refusal:
    """A code for programs (snake_case, stable) and one sentence for people."""

    code: str
    message: str
