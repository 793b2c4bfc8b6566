"""The list of mutations fits the tree and the threats; the runner tells what is caught from what is not."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.security.mutate import MUTATIONS, ROOT, Tree, check_unmutated, try_out
from tests.security.mutation_list import ListError, Mutation, load_mutations, mutated, problems_of, threats_of

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


def test_the_threats_are_the_first_column_of_their_tables() -> None:
    document = (
        "| a | b |\n|---|---|\n| no | x |\n\n| threat | b |\n|:--|---|\n| one `|` | x |\n| two | y |\n\n| no | |\n"
    )
    assert threats_of(document) == ["one `", "two"]


@dataclass(frozen=True)
class Project:
    """A small project under git whose package bears the name of one that is installed."""

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


def test_the_copy_is_what_is_imported_in_child_processes_too(base: Tree) -> None:
    assert not (base.directory / "secret").exists()
    base.prove_imports(["broker"])
    with pytest.raises(ListError, match="is what tests import"):
        base.prove_imports(["consumer"])


def test_a_control_that_is_tested_is_caught_also_in_child_processes(project: Project, base: Tree) -> None:
    tests = ["tests/test_it.py::test_it_is_refused", "tests/test_it.py::test_it_is_refused_in_a_child"]
    assert try_out(project.mutation("", tests=tests), base).caught
    check_unmutated([project.mutation("", tests=tests)], base, 2)  # the mutation was of a further copy


def test_a_test_may_run_the_mutant_as_another_user(project: Project, base: Tree) -> None:
    with base.with_mutation(project.mutation("test_nothing")) as mutant:
        assert mutant.directory.parent.stat().st_mode & 0o777 == 0o755


def test_a_test_that_passes_or_only_breaks_does_not_catch(project: Project, base: Tree) -> None:
    good, *bad = (f"tests/test_it.py::{test}" for test in ("test_it_is_refused", "test_nothing", "test_a_fixture"))
    assert try_out(project.mutation("", tests=[good, *bad]), base).missed == tuple(bad)


def test_a_test_that_fails_by_itself_shows_nothing(project: Project, base: Tree) -> None:
    both = ["tests/test_it.py::test_first", "tests/test_it.py::test_second"]
    with pytest.raises(ListError, match="test_second does not pass without any mutation"):
        check_unmutated([project.mutation("", tests=both)], base, 1)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("eval('nmae')", "makes no program .* NameError"),
        ("False:\n        pass\n\nint.nothing\n\ndef other(name):\n    if False", "cannot be imported"),
    ],
)
def test_a_mutant_that_is_no_program_shows_nothing(project: Project, base: Tree, new: str, said: str) -> None:
    with pytest.raises(ListError, match=said):
        try_out(project.mutation("test_it_is_refused", new=new), base)


def test_a_hang_catches_only_where_that_is_said(project: Project, base: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.security.mutate._TEST_S", 1.0)
    monkeypatch.setattr("tests.security.mutate._HANG_S", 1.0)
    assert not try_out(project.mutation("test_it_waits"), base).caught
    assert try_out(project.mutation("test_it_waits", hangs=True), base).caught


@pytest.mark.parametrize("node", ["tests/test_bad.py", "tests/test_it.py::test_gone"])
def test_a_test_that_cannot_be_run_is_an_error_of_the_list(project: Project, base: Tree, node: str) -> None:
    with pytest.raises(ListError, match=r"could not be run.*\n"):
        try_out(project.mutation("", tests=[node]), base)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"old": "gone"}, "stands 0 times in broker/__init__.py, not once"),
        ({"old": "return"}, "stands 2 times"),
        ({"new": 'name != "me"'}, "changes nothing"),
        ({"new": "("}, "without sense"),
        ({"new": 'nmae != "me"'}, "Undefined name `nmae`"),
        ({"file": "broker/gone.py"}, "which is not there"),
    ],
)
def test_a_list_that_has_rotted_is_an_error(project: Project, members: dict[str, str], said: str) -> None:
    mutation = project.mutation("test_nothing", **members)
    with pytest.raises(ListError, match=said):
        mutated(mutation, project.root)
    (problem,) = problems_of([mutation], project.root)
    assert said in problem


def test_a_test_that_is_not_there_is_named(project: Project) -> None:
    (problem,) = problems_of([project.mutation("test_gone")], project.root)
    assert "names the test tests/test_it.py::test_gone, which is not there" in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[mutation]]\nname = 'a'", "missing required field"),
        ("[[mutations]]", "unknown field|missing required field"),
        ("x", "cannot be read"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ListError, match=said) as caught:
        load_mutations(tmp_path)
    assert "bad.toml" in str(caught.value)


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    one = "[[mutation]]\nname = 'm'\nthreat = 't'\nfile = 'f'\nold = 'o'\nnew = ''\ntests = ['t']\n"
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(one)
    with pytest.raises(ListError, match="Two mutations are named 'm'"):
        load_mutations(tmp_path)
