"""The geometry of the pictures in the page: they are SVG, whose lengths are in percent of its width."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.fleet.timeline import Spent

__all__ = [
    "Segment",
    "bar_of",
    "spent_of",
]


_LEAST = 0.6  # percent: what is there is seen


@dataclass(frozen=True)
class Segment:
    """A part of a bar: where it begins and how wide it is, in percent."""

    name: str
    value: float
    x: float
    width: float


def bar_of(parts: Iterable[tuple[str, float]]) -> Sequence[Segment]:
    """Return the segments of a bar for these parts, those that are zero left out."""
    parts = [(name, value) for name, value in parts if value > 0]
    total = sum(value for _, value in parts)
    widths = [max(_LEAST, 100 * value / total) for _, value in parts]
    scale = 100 / sum(widths) if widths else 1.0
    segments: list[Segment] = []
    x = 0.0
    for (name, value), width in zip(parts, widths, strict=True):
        segments.append(Segment(name, value, round(x, 3), round(width * scale, 3)))
        x += width * scale
    return segments


def spent_of(spent: Sequence[Spent]) -> Sequence[Segment]:
    """Return the bar of what a command's time was spent on."""
    return bar_of((str(it.part), it.seconds) for it in spent)
