"""The folder of results: one run at a time, and only runs that compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from quickstudy import files
from quickstudy.errors import QuickstudyError
from quickstudy.speed.records import Record

# what two runs must have alike to stand in one summary, beside their settings
COMPARED = ("model", "device", "processor", "threads", "torch", "transformers", "peft", "dtype")


@contextmanager
def held(out: Path) -> Iterator[Path]:
    """The folder's file of records, which nobody else writes meanwhile.

    Raises:
        QuickstudyError: if the folder cannot be written to, or another run holds it.
    """
    if out.exists() and not out.is_dir():
        raise QuickstudyError(f"cannot write to {out}: it is no folder; use another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        files.check(out / "summary.json")
        lock = FileLock(out / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise QuickstudyError(
            f"another benchmark writes to {out}; wait for its end, or use another --out"
        ) from error
    except OSError as error:
        raise QuickstudyError(
            f"cannot write to {out}: {error.strerror}; use another --out"
        ) from error
    try:
        yield out / "records.jsonl"
    finally:
        lock.release()


def check_comparable(file: Path, before: Sequence[Record], told: Mapping[str, Any]) -> None:
    """Refuses to mix runs: ratios of one machine do not stand beside limits of another."""
    here = _compared(told)
    for record in (r for r in before if r["row"] == "machine"):
        there = _compared(record)
        for name in {**here, **there}:
            if here.get(name) != there.get(name):
                raise QuickstudyError(
                    f"{file} holds results with {name} = {there.get(name, 'unknown')}, and now it"
                    f" is {here.get(name, 'unknown')}; use another --out"
                )


def _compared(told: Mapping[str, Any]) -> dict[str, Any]:
    """What must be alike, by name: `model`, `quick`, `learning.rank`."""
    machine = told["machine"]
    alike = {name: machine[name] for name in COMPARED if name in machine}
    alike |= {"quick": told["quick"]} if "quick" in told else {}
    for name, value in told.get("settings", {}).items():
        fields = value.items() if isinstance(value, dict) else [("", value)]
        alike |= {f"{name}.{field}".rstrip("."): setting for field, setting in fields}
    return alike
