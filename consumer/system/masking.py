"""Keeps secrets out of output. They are recognized by their type, their key, or the shape of the text."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from broker.contract.secret_shapes import is_assigned_secret, is_ordinary, mask_blocks, mask_shapes
from broker.contract.secrets import MASK, is_secret_name
from broker.system.toml_text import load_toml
from consumer.settings import Secret
from consumer.system.masked_lines import mask_arguments, mask_lines
from consumer.system.syntax import without_comments
from consumer.system.yaml_text import yaml_documents

__all__ = [
    "MASK",
    "mask_text",
    "mask_values",
    "parse_document",
]


_MAX_VALUES = 20_000  # aliases in a short YAML text can expand to millions of values
_FLAG = re.compile(r"--?[\w-]+")
_SHORT_FLAG = "-p"
_USER_FLAGS = ("-u", "-U", "--user", "--proxy-user")
_PAIR = 2
_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_LABELS = ("name", "key", "id", "field", "label", "type", "variable", "setting", "option", "header", "param")
_VALUES = ("value", "values", "val", "default", "content", "data", "text")
_PORTS = re.compile(r"[\d.:/-]*\d+(?:/\w+)?")


def mask_values(value: Any) -> Any:
    """Return `value` as JSON types, with secrets masked; every value below a secret's key is secret.

    Raises ValueError for a value that is too large or contains itself.
    """
    try:
        return _masked(value, "", itertools.count())
    except RecursionError as error:
        raise ValueError("it is nested too deeply to be shown") from error


def _masked(value: Any, key: str, counted: Iterator[int]) -> Any:
    if next(counted) > _MAX_VALUES:
        raise ValueError("it has too many values to be shown")
    if isinstance(value, Mapping):
        named = _named_by_another_member(value)
        return {
            mask_shapes(str(name)): _masked(item, f"{key}.{named.get(str(name), name)}", counted)
            for name, item in value.items()
        }
    if is_assigned_secret(key) and not (value is None or isinstance(value, bool) or _is_shown(value)):
        return MASK
    if isinstance(value, list | tuple | set):
        return _masked_items(value, counted)
    if isinstance(value, Secret):
        return value.masked
    if isinstance(value, str):
        return mask_shapes(mask_arguments(value))
    return value if isinstance(value, int | float | None) else str(value)


def _is_shown(value: Any) -> bool:
    return isinstance(value, str) and (not value or is_ordinary(value))


def _named_by_another_member(pair: Mapping[Any, Any]) -> dict[str, str]:
    """Return the names that the members of a pair such as {"name": "DB_PASSWORD", "value": "…"} stand for."""
    members = {str(name).lower(): (str(name), value) for name, value in pair.items()}
    labels = [members[word] for word in _LABELS if word in members]
    label = next((it for it in labels if isinstance(it[1], str) and is_secret_name(it[1])), None)
    values = [members[word][0] for word in _VALUES if word in members]
    if label is None or not values:
        return {}
    return {**dict.fromkeys(values, label[1]), label[0]: "name"}


def _masked_items(items: Any, counted: Iterator[int]) -> list[Any]:
    """Mask the items of a list, and the value after a flag for a secret, as in `--token hush`."""
    items = list(items)
    if len(items) == _PAIR and isinstance(items[0], str) and isinstance(items[1], str) and _is_name(items[0]):
        return [items[0], items[1] if is_ordinary(items[1]) else MASK]
    shown: list[Any] = []
    follows_flag = False
    for before, item in zip(["", *items], items, strict=False):
        if before in _USER_FLAGS and isinstance(item, str) and ":" in item:
            shown.append(f"{item.partition(':')[0]}:{MASK}")
            continue
        shown.append(MASK if follows_flag and not _is_port(item) else _masked(item, "", counted))
        follows_flag = isinstance(item, str) and (
            item == _SHORT_FLAG or (_FLAG.fullmatch(item) is not None and is_secret_name(item))
        )
    return shown


def _is_name(item: str) -> bool:
    """Return whether a text is only the name of a secret, as the first of a pair."""
    return _NAME.fullmatch(item) is not None and is_secret_name(item)


def _is_port(item: Any) -> bool:
    """Return whether the value of `-p` is a port or a mapping of ports: other programs take a password there."""
    return isinstance(item, int) or (isinstance(item, str) and _PORTS.fullmatch(item) is not None)


def mask_text(name: str, text: str) -> str:
    """Return a file's text with secrets masked: as JSON if its suffix is of TOML, YAML or JSON, otherwise line by line.

    Raises ValueError if it does not have the format of its suffix, or has too many values.
    """
    documents = parse_document(name, text)
    if documents is None:
        return mask_shapes(mask_lines(mask_blocks(text)))
    shown = (json.dumps(mask_values(document), indent=2, ensure_ascii=False) for document in documents)
    return "\n---\n".join(shown).encode("utf-8", "replace").decode()


def parse_document(name: str, text: str) -> list[Any] | None:
    """Return the documents in a text (YAML may have several), or None if its suffix is of another format.

    JSON may have comments, or a value in each line. Raises ValueError with the reason in one line.
    """
    parse = _PARSERS.get(PurePath(name).suffix.lower())
    if parse is None:
        return None
    try:
        return parse(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _parse_json(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError:
        return [json.loads(without_comments(text))]


_PARSERS: Mapping[str, Callable[[str], list[Any]]] = {
    ".json": _parse_json,
    ".toml": lambda text: [load_toml(text)],
    ".yaml": yaml_documents,
    ".yml": yaml_documents,
}
