"""The list of mutations: each takes one control out, and names the tests that must fail then."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import msgspec

__all__ = ["ListError", "Mutation", "load_mutations", "mutated", "problems_of", "threats_of"]

_RUFF = str(Path(sys.executable).with_name("ruff"))
_Words = Annotated[str, msgspec.Meta(min_length=1)]


class ListError(Exception):
    """The list of mutations does not fit the tree: one sentence that says which entry, and what to mend."""


class Mutation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a TOML file. `threat` is a row of docs/security.md, `file` a path in the tree.

    `old`, which stands in the file exactly once, becomes `new`; each of `tests`, node ids of pytest, must fail then.
    `hangs`: a test that does not end in its time counts as failed.
    """

    name: _Words
    threat: _Words
    file: _Words
    old: _Words
    new: str
    tests: Annotated[tuple[_Words, ...], msgspec.Meta(min_length=1)]
    hangs: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    mutation: tuple[Mutation, ...]


def load_mutations(directory: Path) -> list[Mutation]:
    """Return the mutations of every TOML file in a directory; raises ListError."""
    mutations: list[Mutation] = []
    for path in sorted(directory.glob("*.toml")):
        try:
            mutations += msgspec.toml.decode(path.read_bytes(), type=_File).mutation
        except msgspec.DecodeError as error:
            raise ListError(f"{path} cannot be read: {error}.") from error
    names = [mutation.name for mutation in mutations]
    for name in names:
        if names.count(name) > 1:
            raise ListError(f"Two mutations are named {name!r}; name one of them otherwise.")
    return mutations


def mutated(mutation: Mutation, root: Path) -> str:
    """Return the text of the mutation's file with the control taken out; raises ListError."""
    path = root / mutation.file
    if not path.is_file():
        raise ListError(f"The mutation {mutation.name!r} is of {mutation.file}, which is not there.")
    text = path.read_text(encoding="utf-8")
    count = text.count(mutation.old)
    if count != 1:
        raise ListError(
            f"The mutation {mutation.name!r} has an `old` that stands {count} times in {mutation.file}, not once: "
            "the code has changed, so look for where the control is now."
        )
    if mutation.new == mutation.old:
        raise ListError(f"The mutation {mutation.name!r} changes nothing.")
    changed = text.replace(mutation.old, mutation.new)
    if path.suffix == ".py":
        _check_sense(mutation, changed)
    return changed


def _check_sense(mutation: Mutation, changed: str) -> None:
    """Refuse what would fail any test: a broken syntax, names that are not there (ruff's E9, F821, F823)."""
    argv = [_RUFF, "check", "--isolated", "--quiet", "--select=E9,F821,F823", "--output-format=concise", "-"]
    said = subprocess.run(argv, input=changed, capture_output=True, text=True, check=False)
    if said.returncode:
        raise ListError(f"The mutation {mutation.name!r} leaves {mutation.file} without sense: {said.stdout}")


def problems_of(mutations: list[Mutation], root: Path) -> list[str]:
    """Return what is wrong with the list as far as it can be seen without running anything, one sentence each."""
    problems = []
    for mutation in mutations:
        try:
            mutated(mutation, root)
        except ListError as error:
            problems.append(str(error))
        missing = [test for test in mutation.tests if not _is_test(test, root)]
        problems += [f"The mutation {mutation.name!r} names the test {test}, which is not there." for test in missing]
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
