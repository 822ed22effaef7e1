"""The demonstration as one HTML page: what was asked, what was practised, what that cost.

Reads the JSON lines a run wrote (`Answer.to_json`, and what the run knew besides: `request`,
`expected`, `draft_correct`, `correct`) and never calls a model. `templates/demo.html.jinja` counts
the episodes and lays them out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quickstudy.evals import episodes, page


def write_report(
    lines: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    title: str,
    model: str,
    settings: Mapping[str, Any],
    note: str = "",
) -> None:
    """Writes the page to `path`. Equal arguments give equal bytes: no clock, no chance."""
    page.write(
        path,
        "demo.html.jinja",
        title=title,
        model=model,
        settings=list(flat(settings)),
        note=note,
        rows=[episodes.row(number, line) for number, line in enumerate(lines, 1)],
    )


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted name, as `learning.rank`."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            yield f"{prefix}{name}", text
