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
    "mask_blocks",
    "mask_shapes",
]


_PEM_KEY = re.compile(
    r"(-{4,5} ?BEGIN [\w ]{0,40}(?:PRIVATE|STATIC) KEY(?: BLOCK| V1)? ?-{4,5}).*?(-{4,5} ?END|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_PUTTY_KEY = re.compile(r"(Private-Lines: {1,9}\d+\r?\n)[A-Za-z0-9+/=\r\n]+")
_TOKEN = re.compile(
    r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*|\b(?:gh[opsur]_|github_pat_|glpat-|sk_live_|rk_live_|npm_|hvs\.)[\w-]{16,}|"
    r"\bxox[abeoprs]-[\w-]{8,}|\bAIza[\w-]{30,}|(?<=hooks\.slack\.com/services/)[\w/]+|"
    r"(?<=/api/webhooks/)\d+/[\w-]+|\$(?:[1256y]|2[aby]|apr1|argon2\w{0,2}|scrypt|pbkdf2[\w-]{0,10})\$[\w./$,=+-]{12,}"
)
_ENROLMENT_TOKEN = re.compile(r"acm1\.[A-Za-z0-9_-]{22,}")
_BEARER = re.compile(r"\b(Bearer\s+)[\w.~+/=-]{16,}", re.IGNORECASE)
_SOMETIMES_SECRET = re.compile(
    r"(?:^|[.])key$|(?:^|[._-])(?:master)?auth$|(?:^|[._-])(?:ro|rw)?community$|(?:^|[._-])(?:set-)?cookie$|^xauth$",
    re.IGNORECASE,
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
_ASSIGNMENT = re.compile(rf"(?P<name>{_NAME})[\"']?\]?{_BLANKS}(?:[:=]=?>?){_BLANKS}(?=\S)")
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
    rf"(?P<before><(?P<tag>name|key|string|label)>\s{{0,100}}(?P<name>{_NAME})\s{{0,100}}</(?P=tag)>\s{{0,100}}"
    r"(?:<!--.{0,1000}?-->\s{0,100})?<(?P<other>(?!key\b|name\b|label\b)\w{1,100})>)(?P<value>.{0,10000}?)(?=</(?P=other)>)",
    re.IGNORECASE | re.DOTALL,
)
_XML_PAIR_BACKWARDS = re.compile(
    rf"(?P<before><(?P<other>value)>)(?P<value>[^<]*)(?P<after></(?P=other)>\s{{0,100}}"
    rf"<(?P<tag>name|key|label)>\s{{0,100}}(?P<name>{_NAME})\s{{0,100}}</(?P=tag)>)",
    re.IGNORECASE,
)
_XML_LABEL = re.compile(
    r"\s(?:name|key|id|field|property)\s*=\s*(?:\"(?P<name>[^\"]*)\"|'(?P<other>[^']*)')", re.IGNORECASE
)
_XML_ATTRIBUTE = re.compile(r"(\s(?!name\b|key\b|id\b|field\b|property\b|type\b)[\w:.-]+\s*=\s*)(?:\"[^\"]*\"|'[^']*')")
_XML_ESCAPED = re.compile(r"(?P<before>&lt;(?P<name>[\w:.-]{1,200})&gt;)(?P<value>.{1,1000}?)(?=&lt;/)", re.DOTALL)
_INLINE_KEYS = frozenset({"key", "tls-auth", "tls-crypt", "tls-crypt-v2", "pkcs12"})


def is_assigned_secret(name: str) -> bool:
    """Return whether a value that is assigned to this name, possibly a dotted one, is secret."""
    return is_secret_name(name) or _SOMETIMES_SECRET.search(name) is not None


def is_ordinary(value: str) -> bool:
    """Return whether a value is a word that no secret is, as in `PasswordAuthentication yes`."""
    return _ORDINARY.fullmatch(value.strip().strip("\"';,").strip()) is not None


def mask_shapes(text: str) -> str:
    """Return the text with secrets masked by their form, or by the name before them."""
    shown = mask_blocks(text)
    for shape in (_LINE_OF_TWO, _FLAG):
        shown = shape.sub(_masked_if_secret, shown)
    for shape in (_COMMUNITY, _NETRC):
        shown = shape.sub(rf"\g<before>{MASK}", shown)
    return _BEARER.sub(rf"\1{MASK}", "".join(map(_mask_assignment, shown.splitlines(keepends=True))))


def mask_blocks(text: str) -> str:
    """Return the text with those secrets masked that may have several lines, or that are known by their form alone."""
    shown = _ENROLMENT_TOKEN.sub(f"acm1.{MASK}", _PEM_KEY.sub(rf"\1 {MASK} \2", text))
    shown = mask_url_passwords(_TOKEN.sub(MASK, _PUTTY_KEY.sub(rf"\1{MASK}\n", shown)))
    if "<" in shown:
        shown = _XML_PAIR_BACKWARDS.sub(_masked_if_secret, _XML_PAIR.sub(_masked_if_secret, shown))
        shown = _mask_elements(shown)
    if "&lt;" in shown:
        shown = _XML_ESCAPED.sub(_masked_if_secret, shown)
    return _PAIR.sub(_masked_if_secret, shown)


def _masked_if_secret(found: re.Match[str]) -> str:
    if not is_secret_name(found["name"]) or is_ordinary(found["value"]):
        return found[0]
    return f"{found['before']}{MASK}{found.groupdict().get('after') or ''}"


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
        is_secret = is_secret_name(name) or name.lower() in _INLINE_KEYS
        label = None if is_secret else _XML_LABEL.search(tag["attributes"])
        if not is_secret and not (label is not None and is_secret_name(label["name"] or label["other"] or "")):
            shown.append(text[position : tag.end()])
            position = tag.end()
            continue
        values = _XML_VALUE if is_secret else _XML_ATTRIBUTE
        shown += [text[position : tag.start()], values.sub(rf'\1"{MASK}"', tag[0])]
        position = tag.end()
        if not tag["attributes"].rstrip().endswith("/"):
            end = text.find(f"</{tag['name']}", position)
            content = text[position:end] if end >= 0 else text[position:]
            shown.append(content if not content.strip() or is_ordinary(content) else MASK)
            position += len(content)
    return "".join([*shown, text[position:]])
