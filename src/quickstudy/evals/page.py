"""One HTML page: no scripts, no network, the same bytes for the same facts.

All that a model or user wrote is hostile: it reaches a page only through Jinja's autoescaping
(a template may not say `safe`), and the page's own content policy forbids scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from quickstudy import files
from quickstudy.types import STAGES


def write(path: Path, template: str, **facts: Any) -> None:
    """Fills `templates/<template>` and writes the page.

    Raises:
        QuickstudyError: if it cannot be written.
    """
    files.write(path, _environment().get_template(template).render(facts).lstrip())


@cache
def _environment() -> Environment:
    # always on: select_autoescape() would go by the template's name, which ends in .jinja
    environment = Environment(
        loader=PackageLoader("quickstudy.evals"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        clock=_clock,
        median=median,
        percent=percent,
        points=points,
        p_value=p_value,
        interval=interval,
        gain_interval=gain_interval,
    )
    environment.globals.update(stages=STAGES)
    return environment


def percent(share: float | None) -> str:
    """0.4312 as 43.1."""
    return "–" if share is None else f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of shares in points, with its sign: +3.2, −1.0, 0.0."""
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def interval(ends: Sequence[float] | None) -> str:
    """Of an accuracy, in percent: [34.0, 53.1]."""
    return "" if ends is None else f"[{', '.join(map(percent, ends))}]"


def gain_interval(ends: Sequence[float]) -> str:
    """Of a gain, in points: [−1.0, +3.2]."""
    return f"[{', '.join(map(points, ends))}]"


def p_value(p: float) -> str:
    return ("p < 0.001" if p < 0.001 else f"p = {p:.2g}").replace(" ", "\u00a0")


def _clock(seconds: float) -> str:
    if 0 < seconds < 0.01:
        return "<0.01 s"
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
