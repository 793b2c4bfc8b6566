"""Takes one control out at a time, in a copy of the tree, and expects the tests that are named for it to fail.

    python -m tests.security.mutate [--only NAME] [--jobs N]

Exit status: 0 when every mutation was caught, 1 when one was not, 2 when the list does not fit the tree.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Column, Table

from tests.security.mutation_list import ListError, Mutation, load_mutations, mutated, problems_of

__all__ = ["Outcome", "Tree", "Verdict", "check_unmutated", "main", "try_out"]

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = ROOT / "tests" / "security" / "mutations"
_TEST_S = 60.0
_HANG_S = 10.0
_RUNS = 4  # a run takes at most so many times what a test may take; one that hangs can outlive its own time
_NO_TEST_FAILED, _TESTS_FAILED = 0, 1
# What a mutant that is no program fails with, whatever the test looks at.
_SENSELESS = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "SyntaxError")
# Prints where the packages come from, here and in a child process; the child's child is not asked.
_WHENCE = """
import importlib, subprocess, sys
for name in sys.argv[2:]:
    print(importlib.import_module(name).__file__)
if sys.argv[1] == "parent":
    subprocess.run([sys.executable, "-c", sys.orig_argv[2], "child", *sys.argv[2:]], check=True)
"""


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest said: its exit status (None: it did not end), and the first words of each failure."""

    status: int | None
    failures: tuple[str, ...]
    output: str

    @property
    def hung(self) -> bool:
        """Whether it did not end by itself."""
        return self.status is None or any("from pytest-timeout" in failure for failure in self.failures)


@dataclass(frozen=True)
class Verdict:
    """What became of a mutation: `missed` are the tests that passed all the same, of those that had to fail."""

    mutation: Mutation
    missed: tuple[str, ...]

    @property
    def caught(self) -> bool:
        """Whether every test that had to fail has failed."""
        return not self.missed


class Tree:
    """A copy of a project's files in `directory`, in which tests run and import that copy, in their children also."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def copied(cls, root: Path, directory: Path) -> "Tree":
        """Copy what git tracks or would track."""
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (root / name).is_file():
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, directory / name)
        return cls(directory)

    def prove_imports(self, packages: Sequence[str]) -> None:
        """Raise ListError unless these packages are imported from the copy, in a process and in its child."""
        argv = [sys.executable, "-c", _WHENCE, "parent", *packages]
        said = subprocess.run(argv, cwd="/", env=self._environment(), capture_output=True, text=True, check=False)
        places = [Path(line) for line in said.stdout.splitlines()]
        if len(places) != 2 * len(packages) or any(self.directory not in place.parents for place in places):
            raise ListError(f"Not the copy in {self.directory} is what tests import: {said.stdout}{said.stderr}")

    @contextlib.contextmanager
    def with_mutation(self, mutation: Mutation) -> Iterator["Tree"]:
        """Give a further copy, with the control taken out."""
        changed = mutated(mutation, self.directory)
        with _open_directory("acm-mutant-") as place:
            mutant = place / "tree"
            shutil.copytree(self.directory, mutant)
            file = mutant / mutation.file
            file.write_text(changed, encoding="utf-8")
            for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
                compiled.unlink()
            yield Tree(mutant)

    def prove_import_of(self, file: str) -> None:
        """Raise ListError unless the module in this file can be imported."""
        module = ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")
        argv = [sys.executable, "-c", f"import {module}"]
        said = subprocess.run(argv, cwd="/", env=self._environment(), capture_output=True, text=True, check=False)
        if said.returncode:
            raise ListError(f"{file} cannot be imported any more, which shows nothing:\n{_tail(said.stderr)}")

    def test(self, test: str, test_s: float = _TEST_S) -> Outcome:
        """Run this test by itself, for at most so many seconds."""
        with tempfile.TemporaryDirectory(prefix="acm-outcome-") as name:
            report = Path(name) / "outcome.xml"
            argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--timeout={test_s:g}"]
            argv += [f"--junitxml={report}", "--exitfirst", test]
            status, output = _run(argv, self.directory, self._environment(), _RUNS * test_s)
            return Outcome(status, _failures(report) if report.exists() else (), output)

    def _environment(self) -> Mapping[str, str]:
        dropped = ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        return {**kept, "PYTHONPATH": str(self.directory)}


@contextlib.contextmanager
def _open_directory(prefix: str) -> Iterator[Path]:
    """Give a directory that all users may read, for some tests start programs as another one."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


def _run(
    argv: Sequence[str], directory: Path, environment: Mapping[str, str], limit_s: float
) -> tuple[int | None, str]:
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        run = subprocess.Popen(
            argv, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status: int | None = run.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)  # what a mutant has left running, too
            run.wait()
        output.seek(0)
        return status, output.read()


def _failures(report: Path) -> tuple[str, ...]:
    return tuple(failure.get("message") or "" for failure in ElementTree.parse(report).iter("failure"))


def try_out(mutation: Mutation, base: Tree) -> Verdict:
    """Take the control out and run each test; raises ListError when one cannot be run."""
    with base.with_mutation(mutation) as mutant:
        if mutation.file.endswith(".py"):
            mutant.prove_import_of(mutation.file)
        missed = [test for test in mutation.tests if not _is_caught_by(test, mutation, mutant)]
    return Verdict(mutation, tuple(missed))


def _is_caught_by(test: str, mutation: Mutation, mutant: Tree) -> bool:
    outcome = mutant.test(test, _time_of(mutation))
    if outcome.hung:
        return mutation.hangs
    if outcome.status not in (_NO_TEST_FAILED, _TESTS_FAILED):
        raise ListError(
            f"The test {test} of the mutation {mutation.name!r} could not be run, so it shows nothing; "
            f"pytest ended with {outcome.status}:\n{_tail(outcome.output)}"
        )
    senseless = next((failure for failure in outcome.failures if failure.startswith(_SENSELESS)), None)
    if senseless is not None:
        raise ListError(f"The mutation {mutation.name!r} makes no program that {test} could judge: {senseless}")
    return bool(outcome.failures)


def _time_of(mutation: Mutation) -> float:
    return _HANG_S if mutation.hangs else _TEST_S


def _tail(output: str) -> str:
    return "\n".join(output.splitlines()[-30:])


def check_unmutated(mutations: Sequence[Mutation], base: Tree, jobs: int) -> None:
    """Raise ListError unless each test passes as it is run for its mutation: by itself, in the same time."""
    runs = sorted({(test, _time_of(mutation)) for mutation in mutations for test in mutation.tests})
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda run: base.test(*run), runs))
    problems = [
        f"{test} does not pass without any mutation, so it shows nothing:\n{_tail(outcome.output)}"
        for (test, _), outcome in zip(runs, outcomes, strict=True)
        if outcome.status != _NO_TEST_FAILED
    ]
    if problems:
        raise ListError("\n".join(problems))


def _show(verdicts: Sequence[Verdict], seconds: float) -> None:
    table = Table("threat", "mutation", Column("caught by", overflow="fold"), show_lines=True)
    for verdict in sorted(verdicts, key=lambda verdict: verdict.mutation.threat):
        tests = "\n".join(verdict.mutation.tests)
        shown = tests if verdict.caught else "NOT CAUGHT by\n" + "\n".join(verdict.missed)
        table.add_row(verdict.mutation.threat, verdict.mutation.name, shown)
    console = Console(width=None if sys.stdout.isatty() else 180, markup=False, highlight=False, emoji=False)
    console.print(table)
    caught = sum(verdict.caught for verdict in verdicts)
    console.print(f"{caught} of {len(verdicts)} mutations were caught, in {seconds:.0f} s.")


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mutate", description="Take out one control at a time; tests must notice.")
    parser.add_argument("--only", action="append", metavar="NAME", help="try out the mutation of this name alone")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many to try out at once")
    return parser.parse_args(argv)


def _chosen(names: Sequence[str] | None) -> list[Mutation]:
    mutations = load_mutations(MUTATIONS)
    unknown = set(names or ()) - {mutation.name for mutation in mutations}
    if unknown:
        raise ListError(f"No mutation is named {sorted(unknown)[0]!r}.")
    chosen = [mutation for mutation in mutations if names is None or mutation.name in names]
    problems = problems_of(chosen, ROOT)
    if problems:
        raise ListError("\n".join(problems))
    return chosen


def _try_all(mutations: Sequence[Mutation], base: Tree, jobs: int) -> list[Verdict]:
    def one(mutation: Mutation) -> Verdict:
        verdict = try_out(mutation, base)
        print("caught    " if verdict.caught else "NOT CAUGHT", mutation.name, flush=True)
        return verdict

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, mutations))


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    arguments, began = _arguments(argv), monotonic()
    try:
        mutations = _chosen(arguments.only)
        with _open_directory("acm-mutations-") as place:
            base = Tree.copied(ROOT, place)
            base.prove_imports(["broker", "consumer", "tests"])
            check_unmutated(mutations, base, arguments.jobs)
            verdicts = _try_all(mutations, base, arguments.jobs)
    except ListError as error:
        print(f"mutate: {error}", file=sys.stderr)
        return 2
    _show(verdicts, monotonic() - began)
    return 0 if all(verdict.caught for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
