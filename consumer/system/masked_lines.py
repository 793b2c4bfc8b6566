"""Masks secrets in the lines of a configuration whose format is not known: words after a name, and further lines.

A log line or a message is prose, where the word after `password` is rarely one; so this is for files only.
"""

import itertools
import re
from collections.abc import Iterator

from broker.contract.secret_shapes import is_assigned_secret, is_ordinary
from broker.contract.secrets import MASK, is_secret_name

__all__ = ["mask_arguments", "mask_lines"]


_WORD = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|[;{}]|[^\s;{}]+")
_NAME = re.compile(r"\$?[A-Za-z_][\w.-]{0,200}")
_MOST_WORDS = 40  # of a line are looked at
_WORDS_BEFORE = 6  # as in `neighbor 192.0.2.1 password VALUE`
_COMMENT = ("#", "//", "--", ";")
# `NAME: VALUE`, `NAME = VALUE`, `"NAME" => VALUE`, `x['NAME'] = VALUE`, `NAME {`: what follows may take several lines.
_SETTING = re.compile(
    r"(?P<indent>[ \t]*)(?:[^\n=:]{0,100}[^\w.\n=:-])?(?P<name>[A-Za-z_][\w.-]{0,200})[\"']?\]?[ \t]{0,100}"
    r"(?:[:=]=?>?|(?=\{[ \t]*$))[ \t]{0,100}(?P<value>[^\n\r]*)"
)
_HEREDOC = re.compile(r"<<[-~]?[\"']?(?P<word>\w+)")
_BLOCK = re.compile(r"[|>][+-]?\d?[ \t]*(?:#.*)?")
_BRACKETS = {"{": "}", "(": ")", "[": "]", "[[": "]]"}
_USER = re.compile(r"(?P<before>(?<!\S)(?:-[uU]|--(?:proxy-)?user)[ =]?[\"']?[^\s:\"']{1,100}:)[^\s\"']+")
_TOOL = re.compile(r"(?P<before>\b(?:mysql|mariadb|sshpass)[\w-]*\b(?:[^\n|;&]{0,500}?)\s-p[ \t]?)(?!\d+\b)[^\s-]\S*")
_SQL = re.compile(
    r"(?P<before>\b(?:identified[ ]+(?:with[ ]+\S+[ ]+)?(?:by|as)|password[ ]+(?:to|for[ ]+\S+[ ]+=))[ ]+)'[^'\n]*'",
    re.IGNORECASE,
)
_SNMP = re.compile(r"(?P<before>^[ \t]*(?:\S+[ \t]+)?(?:createUser|com2sec6?)[ \t]+\S+[ \t]+).*\S")
_HEADER = re.compile(
    r"(?P<before>^[ \t]*(?:proxy-)?authorization[ \t]+(?:basic|bearer|digest|token)[ \t]+).*\S", re.IGNORECASE
)
_CALL = re.compile(
    r"(?P<before>[\"'](?P<name>[A-Za-z_][\w.-]{0,200})[\"']\s{0,100},\s{0,100})(?:\"[^\"\n]*\"|'[^'\n]*')"
)


def mask_lines(text: str) -> str:
    """Return the text with what belongs to the name of a secret masked, on the same line or the lines below."""
    shown: list[str] = []
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        line = lines[at]
        shown.append(_mask_line(line))
        at += 1
        setting = _SETTING.match(line)
        if setting is None or not is_assigned_secret(setting["name"].rstrip("]")):
            continue
        for _ in _rest_of(setting, lines, at):
            shown.append(_masked_whole(lines[at]))
            at += 1
    return "".join(shown)


def mask_arguments(text: str) -> str:
    """Return a command line with the passwords masked that have no name: `-u USER:PASSWORD`, and `-p` of some tools."""
    return _TOOL.sub(rf"\g<before>{MASK}", _USER.sub(rf"\g<before>{MASK}", text))


def _mask_line(line: str) -> str:
    line = _CALL.sub(lambda it: f"{it['before']}{MASK}" if is_secret_name(it["name"]) else it[0], line)
    for shape in (_SQL, _SNMP, _HEADER):
        line = shape.sub(rf"\g<before>{MASK}", line)
    line = mask_arguments(line)
    if not is_secret_name(line):  # none of its words is one either
        return line
    words = list(itertools.islice(_WORD.finditer(line), _MOST_WORDS))
    shown, position = [], 0
    for number, word in enumerate(words[:-1]):
        if word.start() >= position and _is_name(word[0]) and (value := _value_after(words, number)) is not None:
            shown += [line[position : value.start()], MASK]
            position = value.end()
    return "".join([*shown, line[position:]])


def _is_name(word: str) -> bool:
    bare = word[1:-1] if word[:1] in "\"'" and word[-1:] == word[:1] else word
    return _NAME.fullmatch(bare) is not None and is_secret_name(bare)


def _value_after(words: list[re.Match[str]], number: int) -> re.Match[str] | None:
    """Return the value after the name of a secret: a quoted one, or the last word of a short statement."""
    value = words[number + 1]
    if value[0].isdigit() and len(value[0]) <= 2 and number + 2 < len(words) and _ends(words, number + 3):
        value, number = words[number + 2], number + 1  # `secret 5 VALUE`: how it is encoded
    if value[0] in (";", "{", "}", ":", "=", MASK) or is_ordinary(value[0]):
        return None
    if value[0][0] in "\"'":
        return value
    most = 1 if words[0][0].startswith(_COMMENT) else _WORDS_BEFORE  # further on, a comment is prose
    return value if number <= most and _ends(words, number + 2) and value[0][-1] not in ".:,=" else None


def _ends(words: list[re.Match[str]], number: int) -> bool:
    """Return whether the statement ends before this word."""
    return number >= len(words) or words[number][0] == "}" or words[number][0].startswith(_COMMENT)


def _rest_of(setting: re.Match[str], lines: list[str], at: int) -> Iterator[None]:
    """Yield once for each line, from `at` on, that belongs to the value that has begun before it."""
    value, indent = setting["value"].strip(), len(setting["indent"])
    closing = _closing(value)
    if closing is not None:
        for line in lines[at:]:
            yield
            if closing(line):
                return
        return
    is_block = not value or _BLOCK.fullmatch(value) is not None
    continues = value.endswith("\\")
    for line in lines[at:]:
        deeper = len(line) - len(line.lstrip(" \t")) > indent
        is_blank = not line.strip()
        if not (continues or (is_blank and is_block) or (deeper and (is_block or not _SETTING.match(line)))):
            return
        yield
        continues = line.rstrip().endswith("\\")


class _Until:
    """Whether the line that ends a value has come: it contains `text`, or is `text` if `whole`."""

    def __init__(self, text: str, *, whole: bool = False) -> None:
        self._text, self._whole = text, whole

    def __call__(self, line: str) -> bool:
        return line.strip() == self._text if self._whole else self._text in line


class _Nested:
    """Whether the brackets of a value are closed, which it has opened `depth` times."""

    def __init__(self, opening: str, depth: int) -> None:
        self._opening, self._depth = opening, depth

    def __call__(self, line: str) -> bool:
        self._depth += line.count(self._opening) - line.count(_BRACKETS[self._opening])
        return self._depth <= 0


def _closing(value: str) -> _Until | _Nested | None:
    """Return how a value ends that its first line does not complete; None if that does."""
    for quote in ('"""', "'''", '"', "'", "`"):
        if value.startswith(quote):
            return None if quote in value[len(quote) :] else _Until(quote)
    heredoc = _HEREDOC.match(value)
    if heredoc is not None:
        return _Until(heredoc["word"], whole=True)
    for opening in ("[[", "{", "(", "["):
        depth = value.count(opening) - value.count(_BRACKETS[opening])
        if value.startswith(opening) and depth > 0:
            return _Nested(opening, depth)
    return None


def _masked_whole(line: str) -> str:
    if not line.strip():
        return line
    end = line[len(line.rstrip("\r\n")) :]
    return f"{line[: len(line) - len(line.lstrip())]}{MASK}{end}"
