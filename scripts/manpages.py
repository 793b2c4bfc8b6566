"""Writes the manual pages of both programs, as `make install` does: `python -m scripts.manpages DIRECTORY`.

There is a page for each program, and one for each of its commands: acm.1, acm-send.1, acm-agent-run.1. They are made of
what `--help` shows. The exit codes come from where docs/errors.md has them, the environment variables from docs/acm.md.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

from broker.cli.main import app as acm
from consumer.cli.main import app as acm_agent
from scripts.errors import ROOT, exit_codes

__all__ = ["PROGRAMS", "main", "pages", "variables"]

PROGRAMS: dict[str, typer.Typer] = {"acm": acm, "acm-agent": acm_agent}
_ENVIRONMENT = ROOT / "docs" / "acm.md"
_CODE = re.compile(r"`([^`]+)`")
_UNSAFE = re.compile(r"[\\\-.'`^~]|[^\x00-\x7f]")
_SPECIAL = {"\\": r"\e", "-": r"\-", ".": r"\&.", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}


def main(arguments: list[str]) -> int:
    """Write the pages into the directory, in place of those that an earlier version has written."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m scripts.manpages DIRECTORY\n")
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("acm*.1"):
        old.unlink()
    for program in PROGRAMS:
        for name, text in pages(program).items():
            (directory / f"{name}.1").write_text(text, encoding="ascii")
    return 0


def pages(program: str) -> dict[str, str]:
    """Return the pages of a program by their names: troff in the man(7) macros, in ASCII."""
    group = typer.main.get_command(PROGRAMS[program])
    commands = {name: command for name, command in _members(group).items() if not command.hidden}
    written = {program: "\n".join(_program_page(program, group, commands)) + "\n"}
    for name, command in commands.items():
        written[f"{program}-{name}"] = "\n".join(_command_page(program, name, command)) + "\n"
    return written


def variables(program: str) -> list[tuple[list[str], str]]:
    """Return the environment variables that the program reads, with what they mean, as docs/acm.md lists them."""
    table = _ENVIRONMENT.read_text(encoding="utf-8").partition("\n## Environment\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    return [(_CODE.findall(names), meaning) for names, readers, meaning in rows if f"`{program}`" in readers]


def _members(group: Any) -> dict[str, Any]:
    return {name: group.load(name) if hasattr(group, "load") else group.commands[name] for name in group.commands}


def _commands_in(group: Any, words: str) -> Iterator[tuple[str, Any]]:
    """Yield the commands in a group, and in the groups in it, by their words; nothing for a command."""
    for name, command in getattr(group, "commands", {}).items():
        inner = list(_commands_in(command, f"{words} {name}"))
        yield from inner or [(f"{words} {name}", command)] * (not command.hidden)


def _program_page(program: str, group: Any, commands: dict[str, Any]) -> Iterator[str]:
    yield from _head(program, program, group.help)
    yield from _section("Synopsis", rf"\fB{_text(program)}\fR \fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]")
    yield from _section("Description", _prose(group.help))
    yield from _section("Commands")
    for name, command in commands.items():
        yield from _term(rf"\fB{_text(f'{program}-{name}')}\fR(1)", _prose(_summary(command)))
    yield from _section("Options", *_options(group, program))
    yield from _section("Exit status")
    for code, meaning in exit_codes(program):
        yield from _term(rf"\fB{code}\fR", _prose(meaning))
    yield from _section("Environment")
    for names, meaning in variables(program):
        yield from _term(", ".join(rf"\fB{_text(name)}\fR" for name in names), _prose(meaning))
    others = [f"{program}-{name}" for name in commands] + [other for other in PROGRAMS if other != program]
    yield from _see_also(others)


def _command_page(program: str, name: str, command: Any) -> Iterator[str]:
    yield from _head(f"{program}-{name}", program, _summary(command))
    members = dict(_commands_in(command, f"{program} {name}"))
    own = {f"{program} {name}": command} if not members or command.invoke_without_command else {}
    yield from _section("Synopsis")
    for words, member in {**own, **members}.items():
        yield from (_synopsis(words, member), ".br")
    yield from _section("Description", *_paragraphs(command.help))
    for title, lines in _usage(command, f"{program} {name}").items():
        yield from _section(title, *lines)
    if members:
        yield from _section("Commands")
    for words, member in members.items():
        yield from (f".SS {_text(words)}", *_paragraphs(member.help))
        for lines in _usage(member, words).values():
            yield from lines
    yield from _section("Exit status", rf"See \fB{_text(program)}\fR(1), which also lists the environment variables.")
    yield from _see_also([program])


def _head(name: str, program: str, summary: str) -> Iterator[str]:
    yield f'.TH "{_text(name.upper())}" 1 "" "{_text(program)} {_text(version("agent-command-manager"))}" ""'
    yield from (".nh", ".ad l")  # names of commands and options stay whole
    yield from _section("Name", rf"{_text(name)} \- {_prose(summary.splitlines()[0].rstrip('.'))}")


def _section(title: str, *lines: str) -> Iterator[str]:
    yield f".SH {title.upper()}"
    yield from lines


def _term(term: str, *lines: str) -> Iterator[str]:
    yield from (".TP", term, *lines)


def _see_also(names: list[str]) -> Iterator[str]:
    yield from _section("See also", ",\n".join(rf"\fB{_text(name)}\fR(1)" for name in names))


def _synopsis(words: str, command: Any) -> str:
    arguments = [_argument(it) if it.required else f"[{_argument(it)}]" for it in _parameters(command, "argument")]
    return " ".join((rf"\fB{_text(words)}\fR", r"[\fIOPTIONS\fR]", *(rf"\fI{_text(it)}\fR" for it in arguments)))


def _argument(argument: Any) -> str:
    shown = argument.metavar or argument.name.upper()
    return f"{shown}..." if argument.nargs != 1 and not shown.endswith("...") else shown


def _usage(command: Any, words: str) -> dict[str, list[str]]:
    """Return what there is to know of one command's arguments, options and examples, by the titles of sections."""
    arguments = _parameters(command, "argument")
    note, _, examples = re.split(r"(Examples?: |$)", command.epilog or "", maxsplit=1)
    shown = [rf".B {_text(example)}" for example in examples.split(" | ") if example]
    sections = {
        "Arguments": [
            line for it in arguments for line in _term(rf"\fI{_text(_argument(it))}\fR", _prose(it.help or ""))
        ],
        "Options": list(_options(command, words)),
        "Notes": [".PP", _prose(note)] if note else [],
        "Examples": [".PP", ".nf", *shown, ".fi"] if shown else [],
    }
    return {title: lines for title, lines in sections.items() if lines}


def _options(command: Any, words: str) -> Iterator[str]:
    context = command.context_class(command, info_name=words)
    for it in _parameters(command, "option"):
        option, explained = it.get_help_record(context)
        term = _text(option).replace("|", r"|\:")  # where a list of choices may be broken
        yield from _term(rf"\fB{term}\fR", _prose(explained))


def _parameters(command: Any, kind: str) -> list[Any]:
    return [it for it in command.params if it.param_type_name == kind and not it.hidden]


def _summary(command: Any) -> str:
    return str(command.help).partition(". ")[0].splitlines()[0].rstrip(".")


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        yield from ([".PP"] if number else []) + [_prose(paragraph)]


def _prose(text: str) -> str:
    """Return text for the page on one line, with what is between backquotes in bold."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(rf"\fB{_text(part)}\fR" if number % 2 else _text(part) for number, part in enumerate(parts))


def _text(text: str) -> str:
    """Return text that troff shows as it is."""
    return _UNSAFE.sub(lambda found: _SPECIAL.get(found[0]) or rf"\[u{ord(found[0]):04X}]", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
