"""Checks the project's English: plain words, one spelling for each term (docs/glossary.md).

`python -m scripts.words [PATH …]` prints each hit as `path:line: text: what to write instead`, and ends with 1 if there
are any. It reads Markdown, shell, TOML, units and Docker files as a whole, and the comments and strings of Python.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RULES", "Hit", "Rule", "hits_in", "main", "text_files"]

ROOT = Path(__file__).resolve().parent.parent
_SUFFIXES = {".py", ".md", ".sh", ".toml", ".conf", ".service", ".yaml", ".Dockerfile"}
_NAMES = {"Makefile", "disable-account", "firewall-drop", "host-deny"}
_IGNORED = ("scripts/words.py", "tests/project/test_words.py", "tests/fuzz/findings/", "uv.lock")
_FSTRING_PART = getattr(tokenize, "FSTRING_MIDDLE", -1)  # since Python 3.12


@dataclass(frozen=True)
class Rule:
    """A regular expression that must not match, and the wording to use in its place."""

    pattern: re.Pattern[str]
    better: str


@dataclass(frozen=True)
class Hit:
    """A place where a rule's pattern matches: path relative to the root, line from 1, the text that matched."""

    path: str
    line: int
    text: str
    better: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}: write {self.better}"


def _rule(pattern: str, better: str) -> Rule:
    return Rule(re.compile(pattern.replace(" ", r"\s+(?:#\s+)?"), re.IGNORECASE), better)


RULES = (
    _rule(r"(?<!\bthere\s)\bis no (?!longer\b|more\b|less\b)\w+", "'is not a …' or 'does not …'"),
    _rule(r"\banew\b", "'again' or a verb with 're-'"),
    _rule(r"\bnone is meant\b|\bis meant by\b", "'no agent matches'"),
    _rule(r"\bwhoever\b|\bwhom\b", "the role: 'a client that …', 'an attacker who …'"),
    _rule(r"(?<!-[lu]\s)(?<!user\s)\bnobody\b(?!['\":`-])", "the role: 'no other user', 'no client', 'no agent'"),
    _rule(r"\btold\b|\btells? of\b", "'sent', 'configured', 'reported' or 'notified'"),
    _rule(r"\b(?:say|says|said|saying) so\b", "what it reports, and where"),
    _rule(r"\b(?:is|are|was|were) not there\b", "'does not exist' or 'is missing'"),
    _rule(r"\bpast the server\b", "'without the server'"),
    _rule(r"\bthie(?:f|ves)\b", "'attacker'"),
    _rule(r"\bnot said\b|\bwhat is said\b|\bsays nothing\b", "'default: …', 'not configured' or 'not reported'"),
    _rule(r"\bg(?:o|oes|oing|one) on\b(?! the wire)|\bwent on\b", "'continues'"),
    _rule(r"\bhears?\b|\bheard\b", "'receives'"),
    _rule(r"\bgiven up\b", "'abandoned'"),
    _rule(r"\btak(?:e|es|en) back\b", "'reversed'"),
    _rule(r"\bmend(?:s|ed|ing)?\b", "'fix' or 'repair'"),
    _rule(r"\bin vain\b", "'without success' or 'timed out'"),
    _rule(r"\bfor ever\b", "'forever'"),
    _rule(r"\bmidst\b", "'while it runs'"),
    _rule(r"\bseldom\b", "'rarely' or 'rate-limited'"),
    _rule(r"\b(?:go|goes|went|live|lives) by\b", "'uses' or 'follows'"),
    _rule(r"\btak(?:e|es|en|ing) in (?!(?:order|turns?|place|account)\b)\w+|\btook in\b", "'receives' or 'accepts'"),
    _rule(r"\bstands? in\b(?! for\b)", "'is in'"),
    _rule(r"\bof now\b(?<!\bas\sof\snow)", "'current'"),
    _rule(r"\botherwise than\b", "'differently from'"),
    _rule(r"\ball the same\b", "'anyway'"),
    _rule(r"\ball else\b", "'everything else'"),
    _rule(r"\bbroke down\b", "'raised' or 'failed'"),
    _rule(r"\bvouch\w*\b", "'trusts' or 'signs'"),
    _rule(r"\breckons?\b", "'computes' or 'continues from'"),
    _rule(r"\b(?:whence|thence|thereof|whereof|lest|amid|nought|naught|hither)\b", "a current word"),
    _rule(r"(?<![/.\w`])enrols?\b(?!\.py|\()", "the verb 'enroll'"),
    _rule(r"\benrollments?\b", "the noun 'enrolment'"),
    _rule(r"\bseed form", "'foreign form'"),
)


def text_files(root: Path = ROOT) -> list[str]:
    """Return the paths, relative to the root, of the files under git that are checked."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [
        name
        for name in listed.split("\0")
        if (Path(name).suffix in _SUFFIXES or Path(name).name in _NAMES)
        and not name.startswith(_IGNORED)
        and (root / name).is_file()
    ]


def hits_in(name: str, text: str) -> list[Hit]:
    """Return each match of a rule in a file's text, in order; of Python in its comments and strings only."""
    found = []
    for first, part in _prose(text) if name.endswith(".py") else [(1, text)]:
        for rule in RULES:
            for match in rule.pattern.finditer(part):
                line = first + part.count("\n", 0, match.start())
                found.append(Hit(name, line, " ".join(match[0].split()), rule.better))
    return sorted(found, key=lambda hit: hit.line)


def _prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the strings and comments of a Python source, each with its first line; lines of comments as one text."""
    comment: list[str] = []
    start = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if comment and token.start[0] != start + len(comment):
                yield start, "\n".join(comment)
                comment = []
            start = start if comment else token.start[0]
            comment.append(token.string)
        elif token.type in (tokenize.STRING, _FSTRING_PART):
            yield token.start[0], token.string
    if comment:
        yield start, "\n".join(comment)


def main() -> None:
    """Print the hits in the files below the given paths (default: all), and end with 1 if there are any."""
    wanted = tuple(path.rstrip("/") for path in sys.argv[1:])
    names = [name for name in text_files() if not wanted or any(f"{name}/".startswith(f"{path}/") for path in wanted)]
    hits = [hit for name in names for hit in hits_in(name, (ROOT / name).read_text(encoding="utf-8"))]
    print("\n".join(map(str, hits)) or "no hits")
    sys.exit(bool(hits))


if __name__ == "__main__":
    main()
