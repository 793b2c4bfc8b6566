"""Masks secrets in texts of any kind: logs, messages, and configuration files whose format is not known.

A secret is recognized by the name that stands before it (`password = …`, `<password>…</password>`, `requirepass …`,
`Authorization: …`, `name: DB_PASSWORD` with `value: …`) or by its own form (URL passwords, PEM keys, tokens). Names
that only sometimes are of secrets, such as `key`, count where a value is assigned to them.
"""

import re

from broker.contract.secrets import MASK, is_secret_name, mask_url_passwords

__all__ = [
    "is_assigned_secret",
    "is_ordinary",
    "mask_shapes",
]


_PEM_KEY = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END|\Z)", re.DOTALL)
_ENROLMENT_TOKEN = re.compile(r"acm1\.[A-Za-z0-9_-]{22,}")
_BEARER = re.compile(r"\b(Bearer\s+)[\w.~+/=-]{16,}", re.IGNORECASE)
_SOMETIMES_SECRET = re.compile(
    r"(?:^|[.])key$|(?:^|[._-])(?:master)?auth$|(?:^|[._-])(?:ro|rw)?community$", re.IGNORECASE
)
_ORDINARY = re.compile(
    r"(?:yes|no|true|false|on|off|none|null|nil|~|auto|default|required|optional|enabled|disabled|basic|digest|plain|"
    r"login|md5|peer|ident|trust|pam|ldap|oauth2|tls|scram-sha-256|cram-md5|\*+|xx+)",
    re.IGNORECASE,
)
# Bounded, and only at the beginning of a word: a long line must not take long.
_BLANKS = r"[ \t]{0,100}"
_NAME = r"(?<![\w.])[A-Za-z_][\w.-]{0,200}"
_QUOTED = r"\"[^\"\n]*\"|'[^'\n]*'"
_ASSIGNMENT = re.compile(rf"(?P<name>{_NAME})[\"']?{_BLANKS}(?:[:=]=?>?){_BLANKS}(?=\S)")
_LINE_OF_TWO = re.compile(
    rf"^(?P<before>{_BLANKS}(?:set[ \t])?(?P<name>{_NAME})[ \t]{{1,100}})(?P<value>{_QUOTED}|\S+)"
    rf"(?={_BLANKS};?{_BLANKS}\r?(?:#.*)?$)",
    re.MULTILINE,
)
_FLAG = re.compile(
    rf"(?P<before>(?:^|\s)--?(?P<name>[A-Za-z_][\w.-]{{0,200}})[ \t]{{1,100}})(?P<value>{_QUOTED}|[^\s\"'-]\S*)",
    re.MULTILINE,
)
_COMMUNITY = re.compile(
    rf"(?P<before>^{_BLANKS}(?:snmp-server[ ])?(?:r[ow]community6?|(?<=snmp-server )community)[ \t]{{1,100}})\S+",
    re.MULTILINE,
)
_NETRC = re.compile(r"(?P<before>\blogin[ \t]+\S+[ \t]+password[ \t]+)\S+")
_PAIR = re.compile(
    rf"(?P<before>\b(?:name|key)[\"']?{_BLANKS}[:=]{_BLANKS}[\"']?(?P<name>{_NAME})[\"']?{_BLANKS}[,\r]?\n?{_BLANKS}"
    rf"[\"']?value[\"']?{_BLANKS}[:=]{_BLANKS})(?P<value>{_QUOTED}|[^\n,}}]+)",
    re.IGNORECASE,
)
_XML_TAG = re.compile(r"<(?P<name>[A-Za-z_][\w:.-]*)(?P<attributes>(?:\s[^<>]*)?)>")
_XML_VALUE = re.compile(r"(=\s*)(?:\"[^\"]*\"|'[^']*')")
_XML_PAIR = re.compile(
    rf"(?P<before><(?P<tag>name|key|string)>(?P<name>{_NAME})</(?P=tag)>\s*<(?P<other>value|string|data)>)"
    r"(?P<value>[^<]*)(?=</(?P=other)>)",
    re.IGNORECASE,
)


def is_assigned_secret(name: str) -> bool:
    """Return whether a value that is assigned to this name, possibly a dotted one, is secret."""
    return is_secret_name(name) or _SOMETIMES_SECRET.search(name) is not None


def is_ordinary(value: str) -> bool:
    """Return whether a value is a word that no secret is, as in `PasswordAuthentication yes`."""
    return _ORDINARY.fullmatch(value.strip().strip("\"';,").strip()) is not None


def mask_shapes(text: str) -> str:
    """Return the text with secrets masked by their form, or by the name before them."""
    shown = _ENROLMENT_TOKEN.sub(f"acm1.{MASK}", _PEM_KEY.sub(rf"\1 {MASK} \2", text))
    shown = mask_url_passwords(shown)
    if "<" in shown:
        shown = _mask_elements(_XML_PAIR.sub(_masked_if_secret, shown))
    for shape in (_PAIR, _LINE_OF_TWO, _FLAG):
        shown = shape.sub(_masked_if_secret, shown)
    for shape in (_COMMUNITY, _NETRC):
        shown = shape.sub(rf"\g<before>{MASK}", shown)
    return _BEARER.sub(rf"\1{MASK}", "".join(map(_mask_assignment, shown.splitlines(keepends=True))))


def _masked_if_secret(found: re.Match[str]) -> str:
    if not is_secret_name(found["name"]) or is_ordinary(found["value"]):
        return found[0]
    return f"{found['before']}{MASK}"


def _mask_assignment(line: str) -> str:
    """Mask the rest of a line from the first value on that is assigned to a secret's name."""
    for found in _ASSIGNMENT.finditer(line):
        rest = line[found.end() :]
        if is_assigned_secret(found["name"]) and not is_ordinary(rest):
            end = len(line.rstrip("\r\n"))
            return f"{line[: found.end()]}{MASK}{line[end:]}"
    return line


def _mask_elements(text: str) -> str:
    """Mask the content and the attributes of XML elements with the name of a secret, also over several lines."""
    shown, position = [], 0
    while (tag := _XML_TAG.search(text, position)) is not None:
        name = tag["name"].rpartition(":")[2]
        if not (is_secret_name(name) or name.lower() == "key"):
            shown.append(text[position : tag.end()])
            position = tag.end()
            continue
        shown += [text[position : tag.start()], _XML_VALUE.sub(rf'\1"{MASK}"', tag[0])]
        position = tag.end()
        if not tag["attributes"].rstrip().endswith("/"):
            end = text.find(f"</{tag['name']}", position)
            content = text[position:end] if end >= 0 else text[position:]
            shown.append(content if not content.strip() or is_ordinary(content) else MASK)
            position += len(content)
    return "".join([*shown, text[position:]])
