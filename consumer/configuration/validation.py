"""Judging files before they become the configuration: their syntax, then the service's own check."""

from collections.abc import Sequence
from pathlib import Path

from broker.contract.messages import Output
from consumer.errors import CentralizedConfigurationError
from consumer.system.masking import DOCUMENT_SUFFIXES, parse_document
from consumer.system.programs import Bounds, run_program

__all__ = [
    "CheckFailed",
    "filled",
    "validate",
]


_MAX_DOCUMENT_BYTES = 4 << 20


class CheckFailed(CentralizedConfigurationError):
    """A program says that something is wrong; `output` is what it printed."""

    def __init__(self, message: str, output: Output) -> None:
        super().__init__(message)
        self.output = output


def validate(directory: Path, file: str, check: Sequence[str], bounds: Bounds) -> None:
    """Read every TOML, YAML and JSON file, then run `check` if there is one.

    Raises CentralizedConfigurationError for the first file that is not valid, CheckFailed when the check refuses, and
    ProgramError when it cannot be started.
    """
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in DOCUMENT_SUFFIXES and path.is_file():
            _check_syntax(path.relative_to(directory).as_posix(), path)
    if not check:
        return
    ended = run_program(filled(check, directory, file), bounds)
    if not ended.good:
        raise CheckFailed(f"The check {check[0]} refuses the files: it {ended.in_words()}.", ended.output)


def _check_syntax(name: str, path: Path) -> None:
    if path.stat().st_size > _MAX_DOCUMENT_BYTES:
        raise CentralizedConfigurationError(
            f"{name} has more than {_MAX_DOCUMENT_BYTES} bytes, too many for its syntax to be checked."
        )
    try:
        parse_document(name, path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError and every parser's error are such
        kind = DOCUMENT_SUFFIXES[path.suffix.lower()]
        raise CentralizedConfigurationError(f"{name} is not valid {kind}: {error}.") from error


def filled(argv: Sequence[str], directory: Path, file: str) -> list[str]:
    """Return the words of a program with the paths in place of `{directory}` and `{file}`."""
    return [word.replace("{directory}", str(directory)).replace("{file}", str(directory / file)) for word in argv]
