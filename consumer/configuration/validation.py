"""Validates files before they become the configuration: their syntax, then the service's own check."""

from collections.abc import Callable, Sequence
from pathlib import Path

from broker.contract.messages import Output
from broker.system.text_files import read_text
from broker.system.trees import files_below
from consumer.errors import CentralizedConfigurationError
from consumer.settings import CentralizedConfig, Syntax
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


def validate(
    directory: Path, file: str, settings: CentralizedConfig, bounds: Bounds, run: RunProgram = run_program
) -> None:
    """Read every file that has a syntax by `settings`, then run their `check` if there is one.

    Raises CentralizedConfigurationError for the first invalid file, CheckFailed when the check fails, and ProgramError
    when it cannot be started.
    """
    from consumer.system.syntax import syntax_of  # the formats' parsers are 1 MB

    for path in files_below(directory):
        name = path.relative_to(directory).as_posix()
        syntax = syntax_of(name, settings.syntax)
        if syntax != "none":
            _check_syntax(name, path, syntax)
    check = settings.check
    if not check:
        return
    ended = run(fill_paths(check, directory, file), bounds)
    if not ended.good:
        raise CheckFailed(f"The check {check[0]} rejects the files: it {ended.in_words()}.", ended.output)


def _check_syntax(name: str, path: Path, syntax: Syntax) -> None:
    from consumer.system.syntax import check_syntax, name_of

    if path.stat().st_size > _MAX_DOCUMENT_BYTES:
        raise CentralizedConfigurationError(
            f"{name} has more than {_MAX_DOCUMENT_BYTES} bytes, too many for its syntax to be checked.",
            code="document_too_large",
        )
    try:
        check_syntax(syntax, read_text(path))
    except ValueError as error:
        raise CentralizedConfigurationError(
            f"{name} is not valid {name_of(syntax)}: {error}. If its service reads it nevertheless, set "
            "configuration.syntax for its ending.",
            code="invalid_syntax",
        ) from error


def fill_paths(argv: Sequence[str], directory: Path, file: str) -> list[str]:
    """Return the command line of a program with `{directory}` and `{file}` replaced by the paths."""
    return [word.replace("{directory}", str(directory)).replace("{file}", str(directory / file)) for word in argv]
