"""What a user may have meant: a known word that is similar, or the only id that begins so."""

from collections.abc import Iterable
from difflib import get_close_matches

from broker.errors import InvalidArgument

__all__ = [
    "AmbiguousId",
    "did_you_mean",
    "only_beginning_with",
]


class AmbiguousId(InvalidArgument):
    """More than one id begins so."""

    code = "ambiguous_id"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean …?` with the most similar known word, for the end of a sentence; empty if none is."""
    similar = get_close_matches(word, sorted(known), 1)
    return f" Did you mean {similar[0]}?" if similar else ""


def only_beginning_with(given: str, ids: Iterable[str]) -> str | None:
    """Return the id that is `given`, or else the only one that begins so; None if none does.

    Capitals and dashes are not compared. Raises AmbiguousId.
    """
    known = set(ids)
    if given in known:
        return given
    beginning = _folded(given)
    found = sorted(it for it in known if beginning and _folded(it).startswith(beginning))
    if len(found) > 1:
        raise AmbiguousId(f"Several ids begin with {given[:80]!r}, such as {found[0]} and {found[1]}: write more.")
    return found[0] if found else None


def _folded(text: str) -> str:
    return text.lower().replace("-", "")
