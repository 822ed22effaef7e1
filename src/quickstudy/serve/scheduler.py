"""Many requests, one model: places, threads, practice, cancellation, the end.

Every admitted request has a thread of its own, and computes while it holds the baton. Its work
calls `Deadline.check` between decode passes and between gradient steps; there it hands the baton
on (`Turn`). So a request that needs no practice waits for one batch step of practice at most, and
a request that nobody waits for any more ends at its next step.

Knows no HTTP and no torch.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from quickstudy.decoding import Deadline
from quickstudy.errors import BudgetSpent, PracticeFailed
from quickstudy.serve.baton import Baton, Runner

T = TypeVar("T")
_LOOK_SECONDS = 0.2  # how often a request that waits elsewhere looks whether it is still wanted


class Cancelled(BaseException):
    """Nobody wants the answer any more. No `Exception`: nothing may take it for a fault."""


class QueueFull(Exception):  # noqa: N818 - an answer, not a fault
    """There is no place; in `retry_after` seconds there may be one."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"no place for {retry_after:.0f} s")
        self.retry_after = retry_after


class Draining(Exception):  # noqa: N818 - as above
    """The server ends and takes no more requests."""


class Allowance(Protocol):
    """How much a client may practise."""

    def practice_left(self) -> bool: ...

    def practised(self, seconds: float) -> None: ...


class Job(Runner):
    """One admitted request. It waited `queued` seconds before it first computed."""

    def __init__(self, scheduler: Scheduler, allowance: Allowance | None) -> None:
        super().__init__()
        self.scheduler, self.allowance = scheduler, allowance
        self.arrived = time.monotonic()
        self.queued = 0.0
        self.cancelled = False
        self.followers: tuple[Job, ...] = ()  # those that it practises for as well

    def cancel(self) -> None:
        """Its thread ends at the next step and frees its place. Any thread may call this."""
        self.cancelled = True
        if not self._leads():
            self.scheduler.baton.hurry(self)

    def step(self, until: float | None) -> None:
        """Between two steps of work: others have their turn.

        Raises:
            Cancelled: if nobody wants the answer.
            BudgetSpent: if the client's practice is used up.
        """
        self.count()
        self.scheduler.baton.pause(self, until)
        if self.cancelled and not self._leads():
            raise Cancelled
        if self.practising and not self.followers:
            self._check_allowance()

    def begin_practice(self) -> None:
        """Raises PracticeFailed if it may not practise: the draft is the answer then."""
        self._check_allowance()
        self.count()
        self.scheduler.enter_practice(self)

    def result(self, work: Future[T]) -> T:
        """Waits without the baton for work done elsewhere. Raises Cancelled, or what it raises."""
        self.count()
        with self.scheduler.baton.free(self):
            while not self.cancelled:
                try:
                    return work.result(_LOOK_SECONDS)
                except TimeoutError:
                    if work.done():
                        raise
        raise Cancelled

    def count(self) -> None:
        """Adds up the time computed since it was last added up."""
        now = time.monotonic()
        seconds, self.since = now - self.since, now
        self.computed += seconds
        for job in (self, *self.followers):
            if self.practising and job.allowance is not None:
                job.allowance.practised(seconds / (1 + len(self.followers)))

    def _leads(self) -> bool:
        return any(not follower.cancelled for follower in self.followers)

    def _check_allowance(self) -> None:
        if self.allowance is not None and not self.allowance.practice_left():
            raise BudgetSpent("the key's practice for this hour is used up")


@dataclass(frozen=True)
class Turn(Deadline):
    """A deadline at whose checks other requests have their turn."""

    job: Job | None = None  # always given

    def check(self) -> None:
        assert self.job is not None
        self.job.step(self.at)
        super().check()

    def result(self, work: Future[T]) -> T:
        assert self.job is not None
        return self.job.result(work)


class Scheduler:
    """Places for `places` requests; of the unsure ones `practice_places` may practise or wait."""

    def __init__(self, places: int, practice_places: int) -> None:
        self.places, self.practice_places = places, practice_places
        self.baton = Baton()
        self.jobs: set[Job] = set()
        self.draining = False
        self._lock = threading.Lock()
        self._usual = 1.0  # seconds a request computes, a running mean
        self._threads = _Threads()

    def submit(self, work: Callable[[Job], T], allowance: Allowance | None = None) -> Task[T]:
        """Runs `work` in a thread, with the baton.

        Raises:
            QueueFull: if all places are taken.
            Draining: if the server ends.
        """
        job = Job(self, allowance)
        with self._lock:
            if self.draining:
                raise Draining
            if len(self.jobs) >= self.places:
                raise QueueFull(min(60.0, self._usual))
            self.jobs.add(job)
        future: Future[T] = Future()
        context = contextvars.copy_context()  # the request's id, for logs
        self._threads.run(lambda: context.run(self._run, job, work, future))
        return Task(job, future)

    @property
    def practising(self) -> int:
        return sum(job.practising for job in tuple(self.jobs))

    def enter_practice(self, job: Job) -> None:
        with self._lock:
            if self.practising >= self.practice_places:
                raise PracticeFailed(f"{self.practice_places} requests already wait for practice")
            self.baton.practise(job)

    def aside(self, work: Callable[[], None]) -> None:
        """Runs what belongs to no request, in a thread and without the baton."""
        self._threads.run(work)

    def drain(self) -> None:
        """Takes no more requests; those that are here go on."""
        with self._lock:
            self.draining = True

    def cancel_all(self) -> None:
        for job in tuple(self.jobs):
            job.cancel()

    def _run(self, job: Job, work: Callable[[Job], T], future: Future[T]) -> None:
        self.baton.take(job)
        job.queued = job.since - job.arrived
        result: Any = None
        error: BaseException | None = None
        try:
            if job.cancelled:
                raise Cancelled
            result = work(job)
        except BaseException as failure:  # whoever waits for the future is told
            error = failure
        job.count()
        with self._lock:
            self.jobs.discard(job)
            self._usual += 0.2 * (job.computed - self._usual)
        self.baton.give(job)
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


@dataclass(frozen=True)
class Task(Generic[T]):
    """A job, and what will come of it."""

    job: Job
    future: Future[T]


class _Threads:
    """Threads that are kept for the next request: each has kernel threads of torch's behind it.

    They do not hold up the end of the process, as those of ThreadPoolExecutor do.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    def run(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                threading.Thread(target=self._loop, name="request", daemon=True).start()
        self._work.put(work)

    def _loop(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                self._idle += 1
