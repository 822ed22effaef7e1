"""The runs of a report: read, labelled, and their methods put in order. Calls no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from quickstudy import jsonlines
from quickstudy.errors import QuickstudyError
from quickstudy.evals.records import MethodSummary, Record, Summary

ABSTAIN = "abstain"  # the right answer is no call: no mean with sets where every row has one
TITLES = {
    "nexusraven": "NexusRaven",
    "sealtool": "Seal-Tools",
    "toolalpaca": "ToolAlpaca",
    "apibank": "API-Bank",
    "apibank_l1": "API-Bank, level 1",
    "apibank_l2": "API-Bank, level 2",
    ABSTAIN: "Abstain",
}
GROUPS = {
    "Without learning": (
        "base",
        "base-unconstrained",
        "repair",
        "majority",
        "reconsider",
        "icl",
        "tt-icl",
    ),
    "Practice": ("tt-si", "tt-si-paper", "tt-d"),
    "Controls and ablations": (
        "other-request",
        "certain-only",
        "adapt-all",
        "no-synthesis",
        "no-verification",
        "no-reset",
    ),
    "Trained beforehand": ("sft", "oracle"),
}


@dataclass(frozen=True)
class Run:
    """A folder that `quickstudy eval` wrote. `badge` (A, B, ...) is empty if it is alone."""

    folder: Path
    badge: str
    label: str
    summary: Summary
    records: tuple[Record, ...]

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[Record]]:
        index: dict[tuple[str, str], list[Record]] = {}
        for record in self.records:
            index.setdefault((record.benchmark, record.method), []).append(record)
        return index

    def of(self, benchmark: str, method: str) -> list[Record]:
        return self._index.get((benchmark, method), [])


@dataclass(frozen=True)
class Entry:
    """One method of one run on one benchmark: a row of every table."""

    run: Run
    benchmark: str
    method: str
    summary: MethodSummary

    @property
    def label(self) -> str:
        return label(self.run, self.method)

    @property
    def group(self) -> str:
        return group(self.method)

    @property
    def best_free(self) -> bool:
        return self.run.summary.best_free.get(self.benchmark) == self.method

    @property
    def records(self) -> list[Record]:
        return self.run.of(self.benchmark, self.method)


def read(folders: Sequence[Path]) -> list[Run]:
    """Reads runs in the order given; a folder given twice is read once.

    Raises:
        QuickstudyError: if a folder is no run, or its files cannot be read.
    """
    folders = list(dict.fromkeys(folders))
    found = [_read(folder) for folder in folders]
    models = [summary.model.name for summary, _ in found]
    runs = []
    for number, (folder, (summary, records)) in enumerate(zip(folders, found, strict=True)):
        model = summary.model.name
        # the folder tells apart what the model's name does not
        told = model if models.count(model) == 1 else f"{model}, {folder}"
        runs.append(Run(folder, _badge(number) if len(found) > 1 else "", told, summary, records))
    return runs


def entries(runs: Iterable[Run]) -> dict[str, list[Entry]]:
    """Benchmark -> its entries: known benchmarks first, methods in order, runs side by side."""
    found = [
        Entry(run, benchmark, method, summary)
        for run in runs
        for benchmark, methods in run.summary.benchmarks.items()
        for method, summary in methods.items()
    ]
    names = dict.fromkeys(entry.benchmark for entry in found)
    known = [name for name in TITLES if name in names]
    place = _place(entry.method for entry in found)
    return {
        name: sorted((e for e in found if e.benchmark == name), key=lambda e: place(e.method))
        for name in [*known, *(name for name in names if name not in TITLES)]
    }


def averaged(benchmarks: Iterable[str]) -> list[str]:
    """Those that a mean is taken of: not `abstain`, and no part of one that is there as a whole."""
    names = list(benchmarks)
    parts = {name for name in names if name.startswith("apibank_") and "apibank" in names}
    return [name for name in names if name != ABSTAIN and name not in parts]


def label(run: Run, method: str) -> str:
    return f"{method} ({run.badge})" if run.badge else method


def group(method: str) -> str:
    stem = method.removesuffix("+repair")
    for name, members in GROUPS.items():
        if stem in members or stem.partition("-")[0] in members:
            return name
    return "Other"


def _place(methods: Iterable[str]) -> Callable[[str], tuple[int, int, bool, int]]:
    """A key that sorts methods: by group, as listed there, with `+repair` behind its own."""
    seen = list(dict.fromkeys(methods))
    listed = [member for members in GROUPS.values() for member in members]

    def place(method: str) -> tuple[int, int, bool, int]:
        stem = method.removesuffix("+repair")
        at = listed.index(stem) if stem in listed else len(listed)
        return [*GROUPS, "Other"].index(group(method)), at, stem != method, seen.index(method)

    return place


def _read(folder: Path) -> tuple[Summary, tuple[Record, ...]]:
    path = folder / "summary.json"
    try:
        summary = Summary.model_validate_json(path.read_bytes())
    except OSError as error:
        raise QuickstudyError(
            f"cannot read {path}: {error.strerror}; name folders that `quickstudy eval` wrote"
        ) from error
    except ValidationError as error:
        raise QuickstudyError(f"{path} is no summary of a run: {_first(error)}") from error
    path = folder / "records.jsonl"
    packed = path.with_name(f"{path.name}.gz")
    # a run of no items, or one whose records were not kept: its figures stand all the same
    lines = jsonlines.read(path) if path.exists() or packed.exists() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(Record.model_validate(line))
        except ValidationError as error:
            raise QuickstudyError(f"{path}, line {number}: no record: {_first(error)}") from error
    return summary, tuple(records)


def _first(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"


def _badge(number: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    letter = chr(ord("A") + number % 26)
    return letter if number < 26 else _badge(number // 26 - 1) + letter
