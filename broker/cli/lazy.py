"""Commands whose modules are imported when they are called."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from broker.system.plain_values import keep_plain_values

__all__ = [
    "LazyCommand",
    "lazy_group",
]


_PLACE = ("--server", "--context", "--token-file", "--api-ca", "--ledger", "--config")


@dataclass(frozen=True)
class LazyCommand:
    """A command of a module's `app`, or with `is_group` that whole app as a group; `help` is one line."""

    name: str
    module: str
    help: str
    is_group: bool = False

    def load(self) -> Any:
        """Import the module and return the command or group."""
        holder = typer.Typer()
        module_app = import_module(self.module).app
        if self.is_group:
            holder.add_typer(module_app, name=self.name, help=self.help)
        else:
            holder.add_typer(module_app)
        return typer.main.get_group(holder).commands[self.name]


def lazy_group(*commands: LazyCommand) -> type[TyperGroup]:
    """Return the class of a group of these commands, for `typer.Typer(cls=…)`.

    This is the lazy group of click's documentation, but the list of commands is shown without loading them: most of
    them import SQLAlchemy, cryptography or an HTTP server, which `acm --help` and the other commands do not need.
    """

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            keep_plain_values(self)
            for command in commands:
                self.add_command(TyperCommand(name=command.name, help=command.help))

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Parse the arguments; options of commands that say where they work may be before the command, too."""
            return super().parse_args(ctx, _with_place_after_command(args))

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, _, rest = super().resolve_command(ctx, args)
            return name, self.load(name), rest

        @staticmethod
        def load(name: str | None) -> Any:
            return next(keep_plain_values(command.load()) for command in commands if command.name == name)

    return LazyGroup


def _with_place_after_command(args: list[str]) -> list[str]:
    """Return the arguments with the options before the command that say where it works moved after it."""
    moved: list[str] = []
    rest = list(args)
    while rest and rest[0].partition("=")[0] in _PLACE:
        moved += rest[: 1 if "=" in rest[0] else 2]
        del rest[: 1 if "=" in rest[0] else 2]
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *moved, *rest[end:]] if rest else args
