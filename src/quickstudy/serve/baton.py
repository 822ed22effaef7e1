"""Who computes when: one baton, and only its holder computes.

The holder hands it on where its work can pause if somebody with a better rank waits. Ranks: what
has to come to an end (cancelled, out of time) first, then drafts and sure answers that have begun,
then those that have not, then practice; within a rank the earliest ticket. Who has computed for ten
seconds draws a new one and is like one who has not begun.

Knows no HTTP, no requests and no torch.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from quickstudy.openmp import release_team

SLICE = 10.0  # seconds a holder computes before others of its rank have their turn
_tickets = itertools.count()


class Runner:
    """One who computes. Its own thread calls the baton's methods, but for `hurry` and `recall`."""

    def __init__(self) -> None:
        self.ticket = next(_tickets)
        self.hurried = self.practising = self.begun = False
        self.away = True  # neither computes nor waits, but is going to
        self.computed = 0.0  # seconds with the baton
        self.go = threading.Event()
        self.since = self.slice = 0.0

    @property
    def order(self) -> tuple[int, int]:
        if self.hurried:
            return 0, self.ticket
        return 3 if self.practising else 1 if self.begun else 2, self.ticket


class Baton:
    """Held by one runner at a time, and given from hand to hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: Runner | None = None
        self._waiting: list[Runner] = []

    def take(self, runner: Runner) -> None:
        """Waits for the baton."""
        self.recall(runner)
        self._wait(runner, None)

    def recall(self, runner: Runner) -> None:
        """Has the runner wait already now, before its thread comes and takes the baton.

        So whoever hands on to it lets nobody with a worse rank go between. It does nothing where
        the runner is not away.
        """
        with self._lock:
            if not runner.away:
                return
            runner.away = False
            if self._holder is None:
                self._holder = runner
                runner.go.set()
            else:
                self._waiting.append(runner)

    def give(self, runner: Runner, *, returns: bool = False) -> None:
        with self._lock:
            assert self._holder is runner
            runner.away = returns  # whoever has ended is not recalled
            runner.go.clear()
            release_team()
            self._next()

    def pause(self, runner: Runner, until: float | None = None) -> None:
        """Lets those with a better rank go first.

        Args:
            until: time (monotonic) after which the runner has to come to an end, and so is hurried.
        """
        with self._lock:
            if runner.computed - runner.slice >= SLICE and not runner.practising:
                runner.slice, runner.ticket = runner.computed, next(_tickets)
                runner.begun = False
            if not self._waiting or min(r.order for r in self._waiting) > runner.order:
                return
            runner.go.clear()
            release_team()
            self._waiting.append(runner)
            self._next()
        self._wait(runner, until)

    def invite(self, runner: Runner) -> bool:
        """Lets one that waits, and does not practise, compute up to its next pause.

        Returns:
            Whether there was one.
        """
        with self._lock:
            if all(waiting.practising for waiting in self._waiting):
                return False
            runner.go.clear()
            release_team()
            self._next()
            runner.hurried = True
            self._waiting.append(runner)
        self._wait(runner, None)
        runner.hurried = False
        return True

    def fall_behind(self, runner: Runner) -> None:
        """Of those that have begun, the runner is the last now."""
        with self._lock:
            runner.ticket = next(_tickets)

    def practise(self, runner: Runner) -> None:
        """The runner joins those who practise, as the last of them."""
        with self._lock:
            runner.practising, runner.ticket = True, next(_tickets)

    def hurry(self, runner: Runner) -> None:
        """The runner is the next to go on, so that it can end."""
        with self._lock:
            runner.hurried = True

    @contextmanager
    def free(self, runner: Runner) -> Iterator[None]:
        """While inside, the runner needs no baton."""
        self.give(runner, returns=True)
        try:
            yield
        finally:
            self.take(runner)

    def _wait(self, runner: Runner, until: float | None) -> None:
        left = None if until is None else max(0.0, until - time.monotonic())
        if not runner.go.wait(left):
            self.hurry(runner)
            runner.go.wait()
        runner.begun, runner.since = True, time.monotonic()

    def _next(self) -> None:
        self._holder = min(self._waiting, key=lambda runner: runner.order, default=None)
        if self._holder is not None:
            self._waiting.remove(self._holder)
            self._holder.go.set()
