"""The list of mutations: each removes one control, and names the tests that must then fail."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import msgspec

from broker.errors import CodedError

__all__ = ["ListError", "Mutation", "load_mutations", "mutated", "problems_of", "threats_of"]

_RUFF = str(Path(sys.executable).with_name("ruff"))
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class ListError(CodedError):
    """The list of mutations does not fit the tree; the text names the entry."""

    code = "list_error"


class Mutation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a TOML file. `threat` is a row of docs/security.md, `file` a path in the tree.

    `old`, which occurs exactly once in the file, is replaced by `new`; each of `tests`, node ids of pytest, must then
    fail. `hangs`: a test that exceeds its timeout counts as failed.
    """

    name: _Text
    threat: _Text
    file: _Text
    old: _Text
    new: str
    tests: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1)]
    hangs: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    mutation: tuple[Mutation, ...]


def load_mutations(directory: Path) -> list[Mutation]:
    """Return the mutations of all TOML files in a directory. Raises ListError."""
    mutations: list[Mutation] = []
    for path in sorted(directory.glob("*.toml")):
        try:
            mutations += msgspec.toml.decode(path.read_bytes(), type=_File).mutation
        except msgspec.DecodeError as error:
            raise ListError(f"{path} cannot be read: {error}.", code="unreadable") from error
    names = [mutation.name for mutation in mutations]
    for name in names:
        if names.count(name) > 1:
            raise ListError(f"Two mutations are named {name!r}; rename one.", code="duplicate_name")
    return mutations


def mutated(mutation: Mutation, root: Path) -> str:
    """Return the text of the mutation's file without the control. Raises ListError."""
    path = root / mutation.file
    if not path.is_file():
        raise ListError(f"The file {mutation.file} of the mutation {mutation.name!r} does not exist.", code="no_file")
    text = path.read_text(encoding="utf-8")
    count = text.count(mutation.old)
    if count != 1:
        raise ListError(
            f"The mutation {mutation.name!r} has an `old` that occurs {count} times in {mutation.file} instead of "
            "once: the code has changed; find where the control is now.",
            code="old_not_unique",
        )
    if mutation.new == mutation.old:
        raise ListError(f"The mutation {mutation.name!r} changes nothing.", code="no_change")
    changed = text.replace(mutation.old, mutation.new)
    if path.suffix == ".py":
        _check_syntax(mutation, changed)
    return changed


def _check_syntax(mutation: Mutation, changed: str) -> None:
    """Refuse code that would fail any test: invalid syntax, undefined names (ruff's E9, F821, F823)."""
    argv = [_RUFF, "check", "--isolated", "--quiet", "--select=E9,F821,F823", "--output-format=concise", "-"]
    done = subprocess.run(argv, input=changed, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ListError(
            f"The mutation {mutation.name!r} makes {mutation.file} invalid: {done.stdout}", code="invalid_code"
        )


def problems_of(mutations: list[Mutation], root: Path) -> list[str]:
    """Return the problems of the list that can be found without running anything, one sentence each."""
    problems = []
    for mutation in mutations:
        try:
            mutated(mutation, root)
        except ListError as error:
            problems.append(str(error))
        missing = [test for test in mutation.tests if not _is_test(test, root)]
        problems += [f"The mutation {mutation.name!r} names the test {test}, which does not exist." for test in missing]
    return problems


def _is_test(node: str, root: Path) -> bool:
    file, *names = node.partition("[")[0].split("::")
    if not (root / file).is_file():
        return False
    text = (root / file).read_text(encoding="utf-8")
    return all(re.search(rf"^ *(def|class) {re.escape(name)}\b", text, re.MULTILINE) for name in names)


def threats_of(document: str) -> list[str]:
    """Return the first column of every table in a Markdown text whose first column is headed `threat`."""
    threats, inside = [], False
    for line in document.splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") else ""
        if first == "threat" or not line.startswith("|"):
            inside = first == "threat"
        elif inside and not re.fullmatch("[-: ]*", first):
            threats.append(first)
    return threats
