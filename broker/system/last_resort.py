"""What a program says when the machine refuses what it needs: one sentence, and an exit code after which to retry."""

import contextlib
import errno
import os

__all__ = [
    "EXHAUSTED",
    "end_for",
]


EXHAUSTED = 9
_FAILURE = 1
_PASSES = {
    errno.EAGAIN,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.ESTALE,
}
_NO_MEMORY = "it has no memory for it"
_NO_THREAD = "it has no thread for it (a limit of processes or memory)"


def end_for(name: str, error: BaseException) -> int | None:
    """Complain on stderr, and return the exit code; None for an error that is one of the program itself."""
    reason = _reason(error)
    if reason is None:
        return None
    passes = not isinstance(error, OSError) or error.errno in _PASSES
    rest = "; nothing stored is lost, start it again later." if passes else "."
    line = f"{name}: The machine refuses what the program needs: {reason}{rest}\n"
    with contextlib.suppress(OSError):  # of a log that is gone, too
        os.write(2, line.encode(errors="backslashreplace"))  # sys.stderr may need what is missing
    return EXHAUSTED if passes else _FAILURE


def _reason(error: BaseException) -> str | None:
    if _is_of_memory(error):
        return _NO_MEMORY
    if isinstance(error, OSError):
        file = f" ({error.filename})" if isinstance(error.filename, str) else ""
        return f"{error.strerror or error}{file}"
    if isinstance(error, ImportError) and "failed to map segment" in str(error):  # of a shared library (dlopen(3))
        return _NO_MEMORY
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return _NO_THREAD
    return None


def _is_of_memory(error: BaseException | None) -> bool:
    """Return whether it, or what has caused it, is a lack of memory: in C code it often becomes a SystemError."""
    while error is not None:
        if isinstance(error, MemoryError | SystemError):
            return True
        error = error.__cause__ or error.__context__
    return False
