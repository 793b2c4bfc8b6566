"""Reading the findings of a doctor."""

from collections.abc import Iterable

from broker.system.findings import Fault, Finding, Level

__all__ = ["codes", "only"]


def codes(findings: Iterable[Finding]) -> list[str]:
    """Return the codes of what is not OK, each once."""
    return list(dict.fromkeys(it.code for it in findings if it.level is not Level.OK))


def only(findings: Iterable[Finding], fault: Fault, *facts: str) -> Finding:
    """Return the one finding that is not OK; it must be of this fault, and name these facts."""
    (found,) = [it for it in findings if it.level is not Level.OK]
    assert (found.code, found.level) == (fault.code, fault.level), found
    assert found.fix
    for fact in facts:
        assert fact in f"{found.found} {found.fix}", found
    return found
