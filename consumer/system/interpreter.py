"""Says why a program could not be started: for a script, the kernel's error is about its interpreter, not about it."""

import os
import shutil
from pathlib import Path

__all__ = [
    "interpreter_problem",
    "missing_program",
    "why_not_started",
]


_FIRST_LINE_BYTES = 256  # as much as the kernel reads (BINPRM_BUF_SIZE)


def why_not_started(program: str, error: OSError | ValueError, cwd: Path | None = None) -> str:
    """Return the reason, as the part of a sentence after a colon, for the error of starting `program` in `cwd`."""
    if isinstance(error, FileNotFoundError):
        problem = interpreter_problem(program, cwd)
        if problem is not None:
            return problem
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def missing_program(program: str) -> str | None:
    """Return why a program cannot be there to be started, as a part of a sentence that names it; None if it is there.

    A name without a slash is looked for on the PATH. Whether it can be executed, only its start shows.
    """
    if "/" in program and not os.path.exists(program):
        return f"{program} does not exist"
    if "/" not in program and shutil.which(program) is None:
        return f"{program} is not a program on the PATH"
    problem = interpreter_problem(program)
    return problem and f"{program} cannot be started: {problem}"


def interpreter_problem(program: str, cwd: Path | None = None) -> str | None:
    """Return what is wrong with the interpreter that a script names in its first line; None if nothing is."""
    found = program if "/" in program else shutil.which(program)
    try:
        with Path(cwd or ".", found or program).open("rb") as script:
            first_line = script.read(_FIRST_LINE_BYTES).partition(b"\n")[0]
    except OSError:
        return None
    if not first_line.startswith(b"#!"):
        return None
    words = first_line[2:].decode(errors="replace").lstrip(" \t").split(" ")
    interpreter = words[0].partition("\t")[0]
    if os.path.exists(interpreter.rstrip("\r")) and "\r" in interpreter:
        return f"its first line names the interpreter {interpreter!r}: save it with Unix line ends, without `\\r`"
    if not os.path.exists(interpreter):
        return f"its interpreter {interpreter!r} does not exist"
    return None
