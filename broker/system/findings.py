"""What `acm doctor` and `acm-agent doctor` find: one finding for each thing that was checked, with its fix."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from broker.errors import BrokerError
from broker.text import counted

__all__ = [
    "NOT_CHECKED",
    "ChecksFailed",
    "Fault",
    "Finding",
    "Level",
    "ok",
    "raise_if_failed",
]


class Level(StrEnum):
    """How a check ended. WARN will fail later, or is less than it should be; FAIL does not work now, or is unsafe."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """The outcome of a check: one sentence on what was `found`, and the command or step that fixes it.

    `check` names what was checked, as in `ledger`. `code` is a stable name in snake_case, `ok` if nothing is wrong;
    `fix` is None exactly then.
    """

    check: str
    level: Level
    code: str
    found: str
    fix: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """Return it as a member of the JSON document that a doctor prints."""
        return {"check": self.check, "level": self.level, "code": self.code, "found": self.found, "fix": self.fix}


@dataclass(frozen=True)
class Fault:
    """A kind of finding that is not OK. A table of docs/operations.md has each: its code, level, meaning and fix."""

    code: str
    level: Level
    meaning: str
    fix: str

    def found(self, check: str, found: str, *, fix: str | None = None) -> Finding:
        """Return a finding of this kind; `fix` is given where it can be more specific than the fault's own."""
        return Finding(check, self.level, self.code, found, fix or self.fix)


NOT_CHECKED = Fault(
    "not_checked",
    Level.WARN,
    "Something could not be checked with what this machine has; the sentence says why.",
    "Run the doctor where it can be checked, or after the problem that the sentence names is fixed.",
)


class ChecksFailed(BrokerError):
    """A doctor has found something that does not work, or is unsafe."""

    code = "checks_failed"


def ok(check: str, found: str) -> Finding:
    """Return the finding of a check that found nothing wrong."""
    return Finding(check, Level.OK, "ok", found)


def raise_if_failed(findings: Sequence[Finding]) -> None:
    """Raise ChecksFailed if any finding is a FAIL; for the end of a doctor, after the findings were printed."""
    failed = _names(it for it in findings if it.level is Level.FAIL)
    if failed:
        raise ChecksFailed(f"{counted(len(failed), 'check')} failed: {', '.join(failed)}.")


def _names(findings: Iterable[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.check for finding in findings))
