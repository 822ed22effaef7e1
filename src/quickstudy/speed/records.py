"""The lines of `records.jsonl`: what each must tell, and which run of a row counts.

    {"run": "2026-11-22T08:00:00Z-1f0c9a", "row": "practice", "variant": "naive-trainer",
     "prefix": "short", "repeat": 0, "seconds": 61.2, ...}

A run begins with a line of row `machine`; a line of row `end` says that the row which is its
variant was measured to the end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quickstudy import jsonlines
from quickstudy.errors import QuickstudyError

Record = dict[str, Any]
Check = Callable[[Any], bool]

_BEGINS = b'{"run": "'


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _amount(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < math.inf


def _positive(value: Any) -> bool:
    return _amount(value) and value > 0


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _stages(value: Any) -> bool:
    return _table(value) and all(map(_amount, value.values()))


def _machine(value: Any) -> bool:
    return _table(value) and _text(value.get("dtype"))


def _each(value: Any) -> bool:
    return isinstance(value, list) and all(
        _table(e) and _positive(e.get("seconds")) and _stages(e.get("stages")) for e in value
    )


_TIMED: Mapping[str, Check] = {"repeat": _amount, "seconds": _positive}
_AT: Mapping[str, Check] = {**_TIMED, "prefix": _text}
_WORK: Mapping[str, Check] = {"steps": _amount, "flops_step": _positive}
_ANSWERED: Mapping[str, Check] = {
    "practised": lambda value: isinstance(value, bool),
    "fallback": lambda value: value is None or _text(value),
    "stages": _stages,
}
# row, how the variant begins, and what such a line must hold beside `run`, `row` and `variant`
_NEEDS: Sequence[tuple[str, str, Mapping[str, Check]]] = (
    ("machine", "", {"machine": _machine}),
    ("end", "", {}),
    ("limits", "", {"rate": _positive}),
    ("limits", "product", {"shape": lambda value: isinstance(value, list)}),
    ("practice", "", _AT),
    ("practice", "ours", {**_WORK, "flops_once": _amount}),
    ("step", "", {**_AT, **_WORK, "K": _amount, "B": _amount}),
    ("curves", "", {**_TIMED, "axis": _text, "value": _amount}),
    ("decode", "", {**_TIMED, "tokens": _positive, "passes": _positive, "bytes": _positive}),
    ("whole", "", {**_AT, **_ANSWERED, "prefill_flops": _positive}),
    ("pipeline", "", {**_AT, "stages": _stages}),
    ("pipeline", "ours", _ANSWERED),
    ("together", "", {**_TIMED, "lists": _text}),
    ("together", "alone", {"each": _each}),
    ("together", "together", {"B": _positive}),
    ("memory", "", {**_AT, "peak": _positive, "practised": _amount}),
)
_ROWS = {row for row, _, _ in _NEEDS}


def read(file: Path) -> list[Record]:
    """The records of a file; none if it is not there. Changes nothing.

    Raises:
        QuickstudyError: if the file is not the benchmark's, or a line is damaged.
    """
    if not file.exists():
        return []
    try:
        lines = jsonlines.read(file)
        rest = file.read_bytes().rpartition(b"\n")[2]
    except OSError as error:
        raise QuickstudyError(f"cannot read {file}: {error.strerror}; use another --out") from error
    except QuickstudyError as error:
        raise QuickstudyError(f"{error}; delete that line, or use another --out") from error
    for number, line in enumerate(lines, 1):
        if wrong := problem(line):
            raise QuickstudyError(
                f"{file} is no benchmark's: line {number} {wrong}; use another --out"
            )
    if not rest.startswith(_BEGINS[: len(rest)]):  # a kill leaves the beginning of a record
        raise QuickstudyError(f"{file} is no benchmark's: its last line; use another --out")
    return lines


def problem(line: Any) -> str | None:
    """What keeps a line from being a record."""
    if not isinstance(line, dict):
        return "is no object"
    for name in ("run", "row", "variant"):
        if not _text(line.get(name)):
            return f"has no {name}"
    if line["row"] not in _ROWS:
        return f"has an unknown row {line['row']}"
    for row, begins, fields in _NEEDS:
        if line["row"] == row and line["variant"].startswith(begins):
            for name, holds in fields.items():
                if name not in line:
                    return f"has no {name}"
                if not holds(line[name]):
                    return f"has a wrong {name}"
    return None


def ended(records: Sequence[Record]) -> set[tuple[str, str]]:
    """(run, row) of rows that were measured to the end."""
    return {(r["run"], r["variant"]) for r in records if r["row"] == "end"}


def latest(records: Sequence[Record]) -> list[Record]:
    """The records of the run that counts of each row, which can be run again alone.

    The last one that came to the row's end; where none did, the one with most records.
    """
    whole = ended(records)
    counts = Counter((r["row"], r["run"]) for r in records if r["row"] != "end")
    best: dict[str, tuple[int, str]] = {}
    for (row, run), count in counts.items():  # in the order of the file
        worth = len(records) if (run, row) in whole else count
        if row not in best or worth >= best[row][0]:
            best[row] = (worth, run)
    return [r for r in records if r["row"] in best and r["run"] == best[r["row"]][1]]
