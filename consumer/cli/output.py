"""Output of acm-agent for people: what is known of one thing, a line for each fact."""

from collections.abc import Iterable, Sequence

__all__ = ["titled_facts"]


def titled_facts(title: str, facts: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return a title and below it the facts: a name, and the lines that belong to it."""
    lines = [title]
    for name, texts in facts:
        lines += [f"  {label:<14}{text}" for label, text in zip([name, *[""] * len(texts)], texts, strict=False)]
    return "\n".join(lines)
