"""Validates files before they become the configuration: their syntax, then the service's own check."""

from collections.abc import Callable, Sequence
from pathlib import Path

from broker.contract.messages import Output
from broker.system.text_files import read_text
from broker.system.trees import files_below
from consumer.errors import CentralizedConfigurationError
from consumer.system.masking import DOCUMENT_SUFFIXES, parse_document
from consumer.system.programs import Bounds, Ended, run_program

__all__ = [
    "CheckFailed",
    "fill_paths",
    "validate",
]


RunProgram = Callable[[Sequence[str], Bounds], Ended]
_MAX_DOCUMENT_BYTES = 4 << 20


class CheckFailed(CentralizedConfigurationError):
    """A program reported a problem; `output` is what it printed."""

    code = "check_failed"

    def __init__(self, message: str, output: Output, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.output = output


def validate(directory: Path, file: str, check: Sequence[str], bounds: Bounds, run: RunProgram = run_program) -> None:
    """Read every TOML, YAML and JSON file, then run `check` if there is one.

    Raises CentralizedConfigurationError for the first invalid file, CheckFailed when the check fails, and ProgramError
    when it cannot be started.
    """
    for path in files_below(directory):
        if path.suffix.lower() in DOCUMENT_SUFFIXES:
            _check_syntax(path.relative_to(directory).as_posix(), path)
    if not check:
        return
    ended = run(fill_paths(check, directory, file), bounds)
    if not ended.good:
        raise CheckFailed(f"The check {check[0]} rejects the files: it {ended.in_words()}.", ended.output)


def _check_syntax(name: str, path: Path) -> None:
    if path.stat().st_size > _MAX_DOCUMENT_BYTES:
        raise CentralizedConfigurationError(
            f"{name} has more than {_MAX_DOCUMENT_BYTES} bytes, too many for its syntax to be checked.",
            code="document_too_large",
        )
    try:
        parse_document(name, read_text(path))
    except ValueError as error:  # base class of NotText and of every parser's error
        kind = DOCUMENT_SUFFIXES[path.suffix.lower()]
        raise CentralizedConfigurationError(f"{name} is not valid {kind}: {error}.", code="invalid_syntax") from error


def fill_paths(argv: Sequence[str], directory: Path, file: str) -> list[str]:
    """Return the command line of a program with `{directory}` and `{file}` replaced by the paths."""
    return [word.replace("{directory}", str(directory)).replace("{file}", str(directory / file)) for word in argv]
