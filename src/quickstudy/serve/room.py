"""Where unsure requests wait for practice; those that wait together practise together.

Whoever's turn it is leads: it takes along others that wait, as far as their settings are the
same, and one pass trains a step of each one's own adapter. The others wait without the baton.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from quickstudy.errors import PracticeFailed
from quickstudy.improve import Case, Improver
from quickstudy.serve.scheduler import Job, Turn


@dataclass(eq=False)
class _Entry:
    improver: Improver
    case: Case
    job: Job
    done: Future[None] = field(default_factory=Future)


class Room:
    """Practice for at most `together` requests at once."""

    def __init__(self, together: int) -> None:
        self.together = together
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []

    def practise(self, improver: Improver, case: Case, job: Job) -> None:
        """Practises a case, alone or among others, as soon as it is its turn.

        Raises:
            Cancelled: if nobody wants the answer any more.
        """
        try:
            job.begin_practice()
        except PracticeFailed as refused:
            case.fallback = str(refused)
            return
        entry = _Entry(improver, case, job)
        with self._lock:
            self._waiting.append(entry)
        try:
            job.step(case.deadline.at)
            batch = self._taken_along(entry)
            if batch:
                _lead(batch)
            else:
                job.result(entry.done)
        except PracticeFailed as refused:
            case.fallback = str(refused)
        finally:
            with self._lock:
                if entry in self._waiting:
                    self._waiting.remove(entry)
        if not case.practised and case.fallback is None:
            case.fallback = "practice with others was cut short"

    def _taken_along(self, entry: _Entry) -> list[_Entry]:
        """The entry and those that practise with it; nobody if another has taken it along."""
        with self._lock:
            if entry not in self._waiting:
                return []
            alike = [
                other
                for other in self._waiting
                if other is not entry
                and not other.job.cancelled
                and other.improver.config == entry.improver.config
            ]
            batch = [entry, *alike[: self.together - 1]]
            for member in batch:
                self._waiting.remove(member)
            return batch


def _lead(batch: list[_Entry]) -> None:
    """Practises for all, in the first one's turn."""
    leader, *others = batch
    job = leader.job
    ends = [entry.case.deadline.at for entry in batch if entry.case.deadline.at is not None]
    turn = Turn(min(ends, default=None), job)
    job.followers = tuple(entry.job for entry in others)
    try:
        for entry in batch:
            entry.case.deadline = turn
        leader.improver.practise([entry.case for entry in batch])
    finally:
        job.count()
        job.followers = ()
        for entry in others:
            entry.done.set_result(None)
