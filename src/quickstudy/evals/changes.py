"""Items that a method fixed or broke, against base: what was asked, practised and answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quickstudy.evals import episodes
from quickstudy.evals.episodes import Lines, Problem
from quickstudy.evals.records import Practised, Record, Said
from quickstudy.evals.results import Entry

MOST = 20  # of each kind, benchmark and method: a page is to be read, records.jsonl has them all
LONGEST = 1_500  # characters of one text
TALLEST = 60  # lines of one answer


@dataclass(frozen=True)
class Change:
    """One item. `faults` tells what is wrong with the wrong one of the two answers."""

    id: str
    request: str
    gold: Lines
    before: Lines
    draft: Lines  # empty: what base said
    after: Lines
    faults: tuple[str, ...]
    certainty: float | None
    fallback: str
    repaired: tuple[str, ...]
    notes: tuple[str, ...]
    examples: tuple[Problem, ...]
    rejected: int
    losses: tuple[float | None, ...]
    seconds: float


@dataclass(frozen=True)
class Changes:
    """`left_out`: how many more there are of each kind."""

    entry: Entry
    fixed: tuple[Change, ...]
    broken: tuple[Change, ...]
    left_out: tuple[int, int]


def changes(entry: Entry) -> Changes:
    base = {record.id: record for record in entry.run.of(entry.benchmark, "base")}
    fixed, broken = [], []
    for record in sorted(entry.records, key=lambda record: record.place):
        before = base.get(record.id)
        if before is None or None in (before.verdict.correct, record.verdict.correct):
            continue
        if record.verdict.correct and not before.verdict.correct:
            fixed.append((before, record))
        elif before.verdict.correct and not record.verdict.correct:
            broken.append((before, record))
    return Changes(
        entry,
        tuple(_change(*pair, wrong=pair[0]) for pair in fixed[:MOST]),
        tuple(_change(*pair, wrong=pair[1]) for pair in broken[:MOST]),
        (max(len(fixed) - MOST, 0), max(len(broken) - MOST, 0)),
    )


def _change(base: Record, record: Record, wrong: Record) -> Change:
    before, after = episodes.marked(_lines(base.answer), _lines(record.answer))
    drafted = record.draft is not None and record.draft.tool_calls != base.answer.tool_calls
    return Change(
        id=record.id,
        request=short(record.request),
        gold=tuple((line, False) for line in _fewer(list(episodes.calls(record.gold)))),
        before=before,
        draft=tuple((s, False) for s in _lines(record.draft)) if drafted and record.draft else (),
        after=after,
        faults=tuple(short(f"{fault.kind}: {fault.explanation}") for fault in wrong.verdict.errors),
        certainty=record.certainty,
        fallback=short(record.fallback or ""),
        repaired=tuple(map(short, record.repaired)),
        notes=tuple(map(short, record.notes)),
        examples=tuple(map(_problem, record.examples)),
        rejected=len(record.rejected),
        losses=record.losses,
        seconds=record.total_seconds,
    )


def _problem(example: Practised) -> Problem:
    return Problem(
        short(example.request), tuple(_lines(example)), short(example.source), short(example.reason)
    )


def _lines(said: Said) -> list[str]:
    return _fewer([*short(said.content).splitlines(), *episodes.calls(said.tool_calls)])


def _fewer(lines: Sequence[str]) -> list[str]:
    left = len(lines) - TALLEST
    return [*map(short, lines[:TALLEST]), *([f"… {left:,} lines more"] if left > 0 else ())]


def short(text: str) -> str:
    left = len(text) - LONGEST
    return text if left <= 0 else f"{text[:LONGEST]} … ({left:,} characters more)"
