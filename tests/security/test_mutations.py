"""The list of mutations fits the tree and the threats; the runner distinguishes caught from missed ones."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.security.mutate import MUTATIONS, ROOT, Tree, check_unmutated, try_mutation
from tests.security.mutation_list import ListError, Mutation, load_mutations, mutated, problems_of, threats_of
from tests.support.errors import raises_code

SOURCE = """
def is_allowed(name):
    if name != "me":
        return False
    return True
"""
TESTS = """
import subprocess, sys, threading
import broker
import pytest

def test_it_is_refused():
    assert not broker.is_allowed("you")

def test_it_is_refused_in_a_child():
    script = "import broker, sys; sys.exit(broker.is_allowed('you'))"
    assert subprocess.run([sys.executable, "-c", script], cwd="/").returncode == 0

def test_nothing():
    pass

def test_it_waits():
    assert not broker.is_allowed("you") or threading.Event().wait()

seen = []

def test_first():
    seen.append(1)

def test_second():
    assert seen and not broker.is_allowed("you")

@pytest.fixture
def broken():
    assert not broker.is_allowed("you")

def test_a_fixture(broken):
    pass
"""


def test_every_mutation_fits_the_tree() -> None:
    assert problems_of(load_mutations(MUTATIONS), ROOT) == []


def test_every_threat_has_a_mutation_and_every_mutation_a_threat() -> None:
    threats = threats_of((ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    taken_out = {mutation.threat for mutation in load_mutations(MUTATIONS)}
    assert [threat for threat in threats if threat not in taken_out] == []
    assert sorted(taken_out - set(threats)) == []
    assert len(threats) == len(set(threats))


def test_threats_are_the_first_column_of_threat_tables() -> None:
    document = (
        "| a | b |\n|---|---|\n| no | x |\n\n| threat | b |\n|:--|---|\n| one `|` | x |\n| two | y |\n\n| no | |\n"
    )
    assert threats_of(document) == ["one `", "two"]


@dataclass(frozen=True)
class Project:
    """A small project under git whose package has the name of an installed one."""

    root: Path

    def mutation(self, test: str, **members: Any) -> Mutation:
        whole = {"name": "m", "threat": "t", "file": "broker/__init__.py", "old": 'name != "me"', "new": "False"}
        return msgspec.convert({**whole, "tests": [f"tests/test_it.py::{test}"], **members}, Mutation)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    for name, content in {
        "broker/__init__.py": SOURCE,
        "tests/test_it.py": TESTS,
        "tests/test_bad.py": "import no_such_module",
        ".gitignore": "secret\n",
        "secret": "",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    return Project(root)


@pytest.fixture
def base(project: Project, tmp_path: Path) -> Tree:
    return Tree.copied(project.root, tmp_path / "copy")


def test_child_processes_import_the_copy_too(base: Tree) -> None:
    assert not (base.directory / "secret").exists()
    base.prove_imports(["broker"])
    with raises_code(ListError, "not_the_copy"):
        base.prove_imports(["consumer"])


def test_mutation_is_caught_in_child_processes_too(project: Project, base: Tree) -> None:
    tests = ["tests/test_it.py::test_it_is_refused", "tests/test_it.py::test_it_is_refused_in_a_child"]
    assert try_mutation(project.mutation("", tests=tests), base).caught
    check_unmutated([project.mutation("", tests=tests)], base, 2)  # the mutation was of a further copy


def test_mutant_can_be_read_by_other_users(project: Project, base: Tree) -> None:
    with base.with_mutation(project.mutation("test_nothing")) as mutant:
        assert mutant.directory.parent.stat().st_mode & 0o777 == 0o755


def test_passing_or_broken_test_does_not_catch_a_mutation(project: Project, base: Tree) -> None:
    good, *bad = (f"tests/test_it.py::{test}" for test in ("test_it_is_refused", "test_nothing", "test_a_fixture"))
    assert try_mutation(project.mutation("", tests=[good, *bad]), base).missed == tuple(bad)


def test_test_that_fails_without_a_mutation_is_an_error(project: Project, base: Tree) -> None:
    both = ["tests/test_it.py::test_first", "tests/test_it.py::test_second"]
    with raises_code(ListError, "test_fails_unmutated") as caught:
        check_unmutated([project.mutation("", tests=both)], base, 1)
    assert "test_second" in str(caught.value)
    assert "test_first" not in str(caught.value).splitlines()[0]


@pytest.mark.parametrize(
    ("new", "code"),
    [
        ("eval('nmae')", "invalid_program"),
        ("False:\n        pass\n\nint.nothing\n\ndef other(name):\n    if False", "not_importable"),
    ],
)
def test_invalid_program_is_an_error(project: Project, base: Tree, new: str, code: str) -> None:
    with raises_code(ListError, code):
        try_mutation(project.mutation("test_it_is_refused", new=new), base)


def test_hang_catches_only_a_mutation_that_declares_it(
    project: Project, base: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.security.mutate._TEST_TIMEOUT_S", 1.0)
    monkeypatch.setattr("tests.security.mutate._HANG_TIMEOUT_S", 1.0)
    assert not try_mutation(project.mutation("test_it_waits"), base).caught
    assert try_mutation(project.mutation("test_it_waits", hangs=True), base).caught


@pytest.mark.parametrize("node", ["tests/test_bad.py", "tests/test_it.py::test_gone"])
def test_test_that_cannot_be_run_is_an_error(project: Project, base: Tree, node: str) -> None:
    with raises_code(ListError, "test_not_run"):
        try_mutation(project.mutation("", tests=[node]), base)


@pytest.mark.parametrize(
    ("members", "code", "named"),
    [
        ({"old": "gone"}, "old_not_unique", "0 times in broker/__init__.py"),
        ({"old": "return"}, "old_not_unique", "2 times"),
        ({"new": 'name != "me"'}, "no_change", "'m'"),
        ({"new": "("}, "invalid_code", "broker/__init__.py"),
        ({"new": 'nmae != "me"'}, "invalid_code", "`nmae`"),
        ({"file": "broker/gone.py"}, "no_file", "broker/gone.py"),
    ],
)
def test_outdated_entry_is_an_error(project: Project, members: dict[str, str], code: str, named: str) -> None:
    mutation = project.mutation("test_nothing", **members)
    with raises_code(ListError, code) as caught:
        mutated(mutation, project.root)
    assert named in str(caught.value)
    assert problems_of([mutation], project.root) == [str(caught.value)]


def test_missing_test_is_named(project: Project) -> None:
    (problem,) = problems_of([project.mutation("test_gone")], project.root)
    assert "tests/test_it.py::test_gone" in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[mutation]]\nname = 'a'", "missing required field"),
        ("[[mutations]]", "unknown field|missing required field"),
        ("x", "cannot be read"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with raises_code(ListError, "unreadable") as caught:
        load_mutations(tmp_path)
    assert "bad.toml" in str(caught.value)
    assert re.search(said, str(caught.value))


def test_duplicate_name_is_an_error(tmp_path: Path) -> None:
    one = "[[mutation]]\nname = 'm'\nthreat = 't'\nfile = 'f'\nold = 'o'\nnew = ''\ntests = ['t']\n"
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(one)
    with raises_code(ListError, "duplicate_name") as caught:
        load_mutations(tmp_path)
    assert "'m'" in str(caught.value)
