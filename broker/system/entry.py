"""Runs a command line: neither a signal nor output that fails ends in a traceback."""

import json
import signal
import sys
from collections.abc import Callable
from itertools import pairwise
from types import FrameType

from broker.errors import CodedError
from broker.system.early_signals import INTERRUPTED, await_signals_early, calls_service
from broker.system.init import run_as_child_of_init
from broker.system.standard_streams import OutputError, discard_output, secure_standard_streams
from broker.text import printable

__all__ = [
    "OUTPUT_FAILED",
    "asks_for_json",
    "run_command_line",
]


OUTPUT_FAILED = 8
_USAGE = 2
_JSON = frozenset({"--json", "-ojson", "--output=json"})
_NOT_UTF8 = "An argument is not text in UTF-8."


def run_command_line(
    name: str, run: Callable[[], object], exit_code_of: Callable[[CodedError], int], *, services: tuple[str, ...]
) -> None:
    """Run a command line and exit; an expected error is one sentence on stderr, and its exit code.

    With --json the sentence is in a line of JSON, with the error's code and the exit code.
    """
    secure_standard_streams()
    run_as_child_of_init()
    try:
        if calls_service(services):
            await_signals_early(services)
        else:
            signal.signal(signal.SIGINT, _interrupt)
            sys.unraisablehook = _interrupt_again
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # also ends what waits for a database or a lock
        code = _code_of(run) if all(sys.argv[1:]) else _refuse_empty_argument(name)
        sys.stdout.flush()
    except OutputError as error:
        discard_output()
        code = OUTPUT_FAILED
        if not error.is_unread:
            _complain(name, str(error), error.code, code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except UnicodeEncodeError:
        code = _USAGE
        _complain(name, _NOT_UTF8, "not_utf8", code)
    except CodedError as error:
        is_argument = isinstance(error.__cause__, UnicodeEncodeError)  # the ledger's driver did not take it
        code = _USAGE if is_argument else exit_code_of(error)
        _complain(name, _NOT_UTF8 if is_argument else str(error), "not_utf8" if is_argument else error.code, code)
    sys.exit(code)


class _Interrupted(KeyboardInterrupt):
    """INT came. After a KeyboardInterrupt itself in exec(), which dataclasses use, `python -m` would end by the signal,
    though it was caught, and not with the exit code."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise _Interrupted


_SOON = 0.001


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Send INT again in a moment: Python drops what is raised while it frees an object, and the command continues."""
    if isinstance(lost.exc_value, _Interrupted):
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_REAL, _SOON)
    else:
        sys.__unraisablehook__(lost)


def _refuse_empty_argument(name: str) -> int:
    """Complain and return the exit code: `--state "$UNSET"` would mean the current directory."""
    before = sys.argv[sys.argv.index("", 1) - 1]
    sentence = f"The argument after {before!r} is empty; give a value, or leave both out."
    _complain(name, sentence, "empty_argument", _USAGE)
    return _USAGE


def _code_of(run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


def asks_for_json() -> bool:
    """Return whether the command line asks for JSON; it may be wrong otherwise."""
    words = sys.argv[1:]
    return not _JSON.isdisjoint(words) or any(it in (("-o", "json"), ("--output", "json")) for it in pairwise(words))


def _complain(name: str, sentence: str, code: str, exit_code: int) -> None:
    if asks_for_json():
        error = {"code": code, "message": sentence, "exit_code": exit_code}
        print(json.dumps({"error": error}), file=sys.stderr)
    else:
        print(printable(f"{name}: {sentence}"), file=sys.stderr)
