"""The practice of a run, kept by content: methods and later runs that share it make it once.

Unlike the practice memory (`augmentation.memory`) it keeps what was rejected and what the making
took, so that what is shared is told in full of each method. A file of JSON lines.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from quickstudy.augmentation import memory
from quickstudy.augmentation.synthesis import Synthesis, synthesise
from quickstudy.decoding import Deadline, Draft
from quickstudy.errors import BudgetSpent, PracticeFailed, QuickstudyError, TeacherFailed
from quickstudy.footprint import footprint
from quickstudy.improve import Given, Improver
from quickstudy.jsonlines import append, complete
from quickstudy.types import Rejected

Entry = tuple[Given, float | None]  # the practice, and the memory that making it took


class PracticeBook:
    def __init__(self, path: Path | None = None) -> None:
        """Reads what a file holds, and adds to it; None: nothing is kept beyond this object."""
        self.path = path
        self._entries: dict[str, Entry] = {}
        for line in complete(path) if path else ():
            # what a model wrote may be beyond JSON (NaN): then it is made again
            with suppress(QuickstudyError, ValueError, LookupError, TypeError, RecursionError):
                self._entries[line["key"]] = _parse(line)

    def practice(self, improver: Improver, draft: Draft, deadline: Deadline) -> Entry:
        """Practice for a draft as `Improver.improve` would make it."""
        key = _key(improver, draft)
        if key in self._entries:
            return self._entries[key]
        made, failure, lasting = Synthesis(), None, True
        start = time.perf_counter()
        config, teacher = improver.config, improver.teacher
        with footprint() as peak:
            try:
                synthesise(improver.decoder, draft, config, teacher, deadline, made)
            except PracticeFailed as error:
                failure = str(error)  # the error itself would hold on to all that it passed through
                # what a clock or a server brought about is no content: the next try may do better
                lasting = not isinstance(error, BudgetSpent | TeacherFailed)
        given = Given(made, time.perf_counter() - start, failure)
        entry = given, peak.peak_mb
        if lasting and not (teacher and made.notes):  # notes: the teacher failed
            self._entries[key] = entry
            if self.path:
                append(self.path, {"key": key, **_dump(entry)})
        return entry


def _key(improver: Improver, draft: Draft) -> str:
    config, teacher = improver.config, improver.teacher
    read = {"augmentation", "decoding", "seed"} | ({"teacher"} if teacher else set())
    settings = config.model_dump(mode="json", include=read)
    for name in ("memory", "memory_megabytes", "informative_loss"):  # not read by synthesis
        del settings["augmentation"][name]
    if teacher:
        settings["teacher_name"] = teacher.name
    fingerprint, request = improver.model.fingerprint, draft.context.request
    return memory.key(fingerprint, request, draft.reply, draft.call_format, settings)


def _dump(entry: Entry) -> dict[str, Any]:
    given, peak = entry
    return {
        "examples": [memory.dump(example) for example in given.made.examples],
        "rejected": [{**memory.dump(r.example), "reason": r.reason} for r in given.made.rejected],
        "notes": given.made.notes,
        "failure": given.failure,
        "seconds": given.seconds,
        "peak_rss_mb": peak,
    }


def _parse(line: dict[str, Any]) -> Entry:
    made = Synthesis(
        [memory.parse(raw) for raw in line["examples"]],
        [Rejected(memory.parse(raw), raw["reason"]) for raw in line["rejected"]],
        line["notes"],
    )
    return Given(made, line["seconds"], line["failure"]), line["peak_rss_mb"]
