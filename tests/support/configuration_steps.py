"""What the tests of apply-centralized-configuration share, with a service in memory and with a real one."""

import hashlib
from collections.abc import Callable
from pathlib import Path

TYPE = "apply-centralized-configuration"
STEPS = ("downloaded", "staged", "validated", "swapped", "reloaded", "checked")
GOOD, BETTER, DEAF, DEADLY = "interval = 1\n", "interval = 2\n", "interval = 3 # deaf\n", "interval = 4 # die\n"


class Killed(BaseException):
    """kill -9 at a step."""


class Steps:
    """Keeps the steps reached, and does at one of them what the test wants."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.at: dict[str, Callable[[], object]] = {}

    def reached(self, step: str) -> None:
        name = step.removeprefix(f"{TYPE}.")
        self.names.append(name)
        self.at.get(name, lambda: None)()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def active_files(root: Path) -> dict[str, str]:
    """Return the contents of the active generation's files by path."""
    current = root / "current"
    return {p.relative_to(current).as_posix(): p.read_text() for p in current.rglob("*") if p.is_file()}


def leftovers(root: Path) -> set[str]:
    """Return the names beside the generations that an ended command must not leave."""
    return {path.name for path in root.iterdir()} - {"current", "generations", "journal.json", "lock"}
