"""Where things stand in a figure: scales, ticks, labels beside their points. Knows no method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

LINE = 15.0  # height of a label, in the figure's units


@dataclass(frozen=True)
class Scale:
    """A line from `low` to `high` with ticks; `curve` bends it (log)."""

    low: float
    high: float
    ticks: tuple[float, ...]
    curve: Callable[[float], float] = float

    def at(self, value: float) -> float:
        """Where a value stands, from 0 to 1; what is beyond an end stands at the end."""
        low, high = self.curve(self.low), self.curve(self.high)
        if math.isnan(value):
            return 0.0
        return (self.curve(min(max(value, self.low), self.high)) - low) / (high - low)


def linear(values: Iterable[float], least: float = 0.0) -> Scale:
    """From a round number below all values to one above, at least `least` long."""
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    missing = max(least - (high - low), 0.0) or (1.0 if high == low else 0.0)
    low, high = low - missing / 2, high + missing / 2
    step = next(step for step in _round((high - low) / 10, 10) if (high - low) / step <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def logarithmic(values: Iterable[float]) -> Scale:
    """For positive values, with some room at both ends; ticks at 1, 2 and 5 of each power."""
    known = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    low = max(tick for tick in _round(min(known) / 10, 1.0) if tick <= min(known) / 1.1)
    high = min(tick for tick in _round(max(known), 1.0) if tick >= max(known) * 1.1)
    every = tuple(tick for tick in _round(low, high / low) if low <= tick <= high)
    return Scale(
        low, high, tuple(t for t in every if _leads(t)) if len(every) > 8 else every, math.log
    )


def counts(values: Iterable[float]) -> Scale:
    """For counts, which may be 0: the logarithm of 1 + count."""
    most = max([value for value in values if math.isfinite(value)] + [1.0])
    high = min(tick for tick in _round(most, 1.0) if tick >= most)
    powers = (tick for tick in _round(1.0, high) if _leads(tick) and 1 <= tick <= high)
    return Scale(0.0, high, (0.0, *powers), math.log1p)


def _round(start: float, times: float) -> Iterator[float]:
    """1, 2 and 5 of every power of ten, from below `start` to above `times` as much."""
    first, last = math.floor(math.log10(start)), math.ceil(math.log10(start * times)) + 1
    return (float(f"{digit}e{power}") for power in range(first, last + 1) for digit in (1, 2, 5))


def _leads(tick: float) -> bool:
    """Whether it is a power of ten."""
    return f"{tick:e}".startswith("1.")


@dataclass(frozen=True)
class Dot:
    """A point to be plotted: `low` and `high` bound y."""

    x: float
    y: float
    low: float
    high: float
    label: str
    kind: int


@dataclass(frozen=True)
class Placed:
    """A dot in the figure's units, and the height of its label."""

    dot: Dot
    x: float
    y: float
    low: float
    high: float
    label_y: float


@dataclass(frozen=True)
class Scatter:
    """Dots over an x and a y axis, their labels in a column at the right, each led to its dot."""

    x: Scale
    y: Scale
    placed: tuple[Placed, ...]
    height: float

    left, right, top = 34.0, 218.0, 10.0  # the field; labels stand right of it

    @property
    def bottom(self) -> float:
        return self.height - 34.0

    def across(self, value: float) -> float:
        return self.left + 8 + self.x.at(value) * (self.right - self.left - 16)

    def up(self, value: float) -> float:
        return self.bottom - self.y.at(value) * (self.bottom - self.top)


def scatter(dots: Sequence[Dot], x: Scale) -> Scatter:
    y = linear([end for dot in dots for end in (dot.low, dot.high)], least=0.1)
    height = max(230.0, LINE * len(dots) + Scatter.top + 40.0)
    empty = Scatter(x, y, (), height)
    ordered = sorted(dots, key=lambda dot: (-dot.y, dot.x, dot.label))
    heights = spread([empty.up(dot.y) for dot in ordered], Scatter.top + 4, empty.bottom)
    placed = tuple(
        Placed(dot, empty.across(dot.x), empty.up(dot.y), empty.up(dot.low), empty.up(dot.high), at)
        for dot, at in zip(ordered, heights, strict=True)
    )
    return Scatter(x, y, placed, height)


def spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Heights near the wanted ones (in order), a line apart, within top and bottom if they fit."""
    heights: list[float] = []
    for height in wanted:
        heights.append(max(height, heights[-1] + LINE if heights else top))
    limit = bottom
    for i in reversed(range(len(heights))):
        heights[i] = max(min(heights[i], limit), top + i * LINE)
        limit = heights[i] - LINE
    return heights
