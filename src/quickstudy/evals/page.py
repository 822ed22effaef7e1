"""One HTML page: no scripts, no network, the same bytes for the same facts.

All that a model or user wrote is hostile: it reaches a page only through Jinja's autoescaping
(a template may not say `safe`), and the page's own content policy forbids scripts.
"""

from __future__ import annotations

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
    # always on: select_autoescape() would go by the template's name, which ends in .jinja
    environment = Environment(
        loader=PackageLoader("quickstudy.evals"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clock=_clock, median=median)
    environment.globals.update(stages=STAGES)
    files.write(path, environment.get_template(template).render(facts).lstrip())


def _clock(seconds: float) -> str:
    if 0 < seconds < 0.01:
        return "<0.01 s"
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
