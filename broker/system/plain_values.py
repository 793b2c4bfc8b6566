"""Values of a command line that need no conversion, without pydantic.

typer converts every value by pydantic, an option that was not given too. That takes 12 MB of a program that runs for
months, and as long as everything else that typer loads.
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = ["keep_plain_values"]


def keep_plain_values(command: Any) -> Any:
    """Return a command of typer, or a group with its commands, that keeps texts, paths, choices and what was not given.

    Other values are converted as before, and so is everything with a typer that has no `get_runtime_param`.
    """
    list_parameters = command.get_params  # with that of --help, which is made when it is first asked for
    command.get_params = lambda context: [_with_plain_values(it) for it in list_parameters(context)]
    for member in getattr(command, "commands", {}).values():
        keep_plain_values(member)
    return command


def _with_plain_values(parameter: Any) -> Any:
    load = getattr(parameter, "get_runtime_param", None)
    if load is not None and not isinstance(load, _PlainValues):
        parameter.get_runtime_param = _PlainValues(parameter, load)
    return parameter


class _PlainValues:
    """Takes the place of a parameter's `get_runtime_param`, whose result typer asks to `coerce` each value."""

    def __init__(self, parameter: Any, load: Callable[[], Any]) -> None:
        self._load = load
        self._kind = parameter.type_descriptor.annotation
        self._is_one_value = not parameter.multiple and parameter.nargs == 1
        self._may_be_plain = self._is_one_value and parameter.type_descriptor.parameter_info.parser is None

    def __call__(self) -> "_PlainValues":
        return self

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as the parameter's type."""
        if self._is_one_value and value is None:
            return value
        if self._may_be_plain:
            if isinstance(self._kind, type) and isinstance(value, self._kind):
                return value
            if isinstance(value, str) and isinstance(self._kind, type):
                if self._kind is Path:
                    return Path(value)
                if issubclass(self._kind, StrEnum) and value in list(self._kind):
                    return self._kind(value)
        return self._load().coerce(value, param=param, ctx=ctx)
