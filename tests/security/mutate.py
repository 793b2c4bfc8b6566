"""Removes one control at a time in a copy of the tree, and expects the tests named in its entry to fail.

    python -m tests.security.mutate [--only NAME] [--jobs N]

Exit status: 0 if every mutation was caught, 1 if one was not, 2 if the list does not fit the tree.
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

__all__ = ["Outcome", "Tree", "Verdict", "check_unmutated", "main", "try_mutation"]

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = ROOT / "tests" / "security" / "mutations"
_TEST_TIMEOUT_S = 60.0
_HANG_TIMEOUT_S = 10.0
_RUN_FACTOR = 4  # limit of a pytest run, in timeouts of its test; a hanging test can exceed its own timeout
_NO_TEST_FAILED, _TESTS_FAILED = 0, 1
# Errors of a mutant that is not a valid program, whatever the test checks.
_INVALID_PROGRAM = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "SyntaxError")
# Prints where the packages are imported from, in this process and in a child process.
_PRINT_ORIGINS = """
import importlib, subprocess, sys
for name in sys.argv[2:]:
    print(importlib.import_module(name).__file__)
if sys.argv[1] == "parent":
    subprocess.run([sys.executable, "-c", sys.orig_argv[2], "child", *sys.argv[2:]], check=True)
"""


@dataclass(frozen=True)
class Outcome:
    """Result of a pytest run: exit status (None: it did not end), the message of each failure, and the output."""

    status: int | None
    failures: tuple[str, ...]
    output: str

    @property
    def hung(self) -> bool:
        """Whether it did not end by itself."""
        return self.status is None or any("from pytest-timeout" in failure for failure in self.failures)


@dataclass(frozen=True)
class Verdict:
    """Result of a mutation: `missed` are the tests that passed although they had to fail."""

    mutation: Mutation
    missed: tuple[str, ...]

    @property
    def caught(self) -> bool:
        """Whether every test that had to fail has failed."""
        return not self.missed


class Tree:
    """A copy of a project's files in `directory`; tests in it, and their child processes, import that copy."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def copied(cls, root: Path, directory: Path) -> "Tree":
        """Copy the files that git tracks or would track."""
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=True).stdout
        for name in filter(None, listed.split("\0")):
            if (root / name).is_file():
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, directory / name)
        return cls(directory)

    def prove_imports(self, packages: Sequence[str]) -> None:
        """Raise ListError unless these packages are imported from the copy, in a process and in its child."""
        argv = [sys.executable, "-c", _PRINT_ORIGINS, "parent", *packages]
        done = subprocess.run(argv, cwd="/", env=self._environment(), capture_output=True, text=True, check=False)
        places = [Path(line) for line in done.stdout.splitlines()]
        if len(places) != 2 * len(packages) or any(self.directory not in place.parents for place in places):
            raise ListError(
                f"Tests do not import the copy in {self.directory}: {done.stdout}{done.stderr}", code="not_the_copy"
            )

    @contextlib.contextmanager
    def with_mutation(self, mutation: Mutation) -> Iterator["Tree"]:
        """Yield another copy, without the control."""
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
        done = subprocess.run(argv, cwd="/", env=self._environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ListError(f"The mutated {file} cannot be imported:\n{_tail(done.stderr)}", code="not_importable")

    def test(self, test: str, test_s: float = _TEST_TIMEOUT_S) -> Outcome:
        """Run this test alone, for at most `test_s` seconds."""
        with tempfile.TemporaryDirectory(prefix="acm-outcome-") as name:
            report = Path(name) / "outcome.xml"
            argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--timeout={test_s:g}"]
            argv += [f"--junitxml={report}", "--exitfirst", test]
            status, output = _run(argv, self.directory, self._environment(), _RUN_FACTOR * test_s)
            return Outcome(status, _failures(report) if report.exists() else (), output)

    def _environment(self) -> Mapping[str, str]:
        dropped = ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        return {**kept, "PYTHONPATH": str(self.directory)}


@contextlib.contextmanager
def _open_directory(prefix: str) -> Iterator[Path]:
    """Yield a directory that all users can read, since some tests start programs as another user."""
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
                os.killpg(run.pid, signal.SIGKILL)  # and the processes that a mutant left running
            run.wait()
        output.seek(0)
        return status, output.read()


def _failures(report: Path) -> tuple[str, ...]:
    return tuple(failure.get("message") or "" for failure in ElementTree.parse(report).iter("failure"))


def try_mutation(mutation: Mutation, base: Tree) -> Verdict:
    """Remove the control and run each test. Raises ListError if one cannot be run."""
    with base.with_mutation(mutation) as mutant:
        if mutation.file.endswith(".py"):
            mutant.prove_import_of(mutation.file)
        missed = [test for test in mutation.tests if not _is_caught_by(test, mutation, mutant)]
    return Verdict(mutation, tuple(missed))


def _is_caught_by(test: str, mutation: Mutation, mutant: Tree) -> bool:
    outcome = mutant.test(test, _timeout_of(mutation))
    if outcome.hung:
        return mutation.hangs
    if outcome.status not in (_NO_TEST_FAILED, _TESTS_FAILED):
        raise ListError(
            f"The test {test} of the mutation {mutation.name!r} could not be run; "
            f"pytest ended with {outcome.status}:\n{_tail(outcome.output)}",
            code="test_not_run",
        )
    invalid = next((failure for failure in outcome.failures if failure.startswith(_INVALID_PROGRAM)), None)
    if invalid is not None:
        raise ListError(
            f"The mutation {mutation.name!r} is not a valid program in {test}: {invalid}", code="invalid_program"
        )
    return bool(outcome.failures)


def _timeout_of(mutation: Mutation) -> float:
    return _HANG_TIMEOUT_S if mutation.hangs else _TEST_TIMEOUT_S


def _tail(output: str) -> str:
    return "\n".join(output.splitlines()[-30:])


def check_unmutated(mutations: Sequence[Mutation], base: Tree, jobs: int) -> None:
    """Raise ListError unless each test passes without a mutation, run alone and with the same timeout."""
    runs = sorted({(test, _timeout_of(mutation)) for mutation in mutations for test in mutation.tests})
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda run: base.test(*run), runs))
    problems = [
        f"{test} does not pass without a mutation:\n{_tail(outcome.output)}"
        for (test, _), outcome in zip(runs, outcomes, strict=True)
        if outcome.status != _NO_TEST_FAILED
    ]
    if problems:
        raise ListError("\n".join(problems), code="test_fails_unmutated")


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
    parser = argparse.ArgumentParser(prog="mutate", description="Remove one control at a time; tests must fail.")
    parser.add_argument("--only", action="append", metavar="NAME", help="try only the mutation with this name")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="number of parallel runs")
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
        verdict = try_mutation(mutation, base)
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
