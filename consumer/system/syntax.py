"""The syntax of configuration files, by each format's own rules: what a file means is for its service to judge.

Nothing is constructed: no tag is resolved and no alias expanded, numbers keep their digits.
"""

import json
import re
from collections.abc import Callable, Mapping

import yaml

from broker.system.toml_text import load_toml
from consumer.settings import Syntax
from consumer.system.yaml_text import check_yaml

__all__ = [
    "DEFAULT_SYNTAX",
    "check_syntax",
    "name_of",
    "parse_json",
    "syntax_of",
    "without_comments",
]


DEFAULT_SYNTAX: Mapping[str, Syntax] = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
_NAMES: Mapping[Syntax, str] = {"jsonc": "JSON with comments", "json-lines": "JSON lines"}
_STRING = r'"(?:\\.|[^"\\])*+"?'
_JSON_COMMENT = re.compile(rf"({_STRING})|//[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/", re.DOTALL)
_TRAILING_COMMA = re.compile(rf"({_STRING})|,(?=\s*+[\]}}])", re.DOTALL)


def syntax_of(name: str, configured: Mapping[str, Syntax]) -> Syntax:
    """Return the syntax of a file by the longest ending of its name, case-insensitively; `none` if none fits."""
    known: dict[str, Syntax] = {**DEFAULT_SYNTAX, **{ending.lower(): syntax for ending, syntax in configured.items()}}
    fitting = [ending for ending in known if name.lower().endswith(ending)]
    return known[max(fitting, key=len)] if fitting else "none"


def name_of(syntax: Syntax) -> str:
    """Return the name of a syntax as in a sentence."""
    return _NAMES.get(syntax, syntax.upper())


def check_syntax(syntax: Syntax, text: str) -> None:
    """Raise ValueError, with the reason in one line, if a text does not have this syntax."""
    if syntax == "none":
        return
    try:
        _CHECKS[syntax](text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ValueError(reason) from error


def parse_json(text: str) -> object:
    """Return the value of a JSON text, with numbers as they are written; raises ValueError and RecursionError."""
    return json.loads(text, parse_int=str, parse_float=str)


def without_comments(text: str) -> str:
    """Return JSON without its comments and trailing commas; lines keep their numbers."""
    uncommented = _JSON_COMMENT.sub(lambda found: found[1] or _blank(found[0]), text)
    return _TRAILING_COMMA.sub(lambda found: found[1] or " ", uncommented)


def _blank(comment: str) -> str:
    return "\n" * comment.count("\n") or " "


def _check_json_lines(text: str) -> None:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                parse_json(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


_CHECKS: Mapping[Syntax, Callable[[str], object]] = {
    "toml": load_toml,
    "yaml": check_yaml,
    "json": parse_json,
    "jsonc": lambda text: parse_json(without_comments(text)),
    "json-lines": _check_json_lines,
}
