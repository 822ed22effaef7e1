"""`quickstudy eval`: methods on benchmarks, an item a line as it goes; resumes where it stopped.

    for each benchmark, each row of the seeded order, each method: answer, grade, write the line

A line is on the disk before the next item begins, and what is on the disk is not done again, so a
kill costs the item it fell on. What decides the answers (model, data, seed, settings) is written
to `run.json` first; a run with another of these is refused. Methods, benchmarks and more rows may
be added to a run later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from filelock import FileLock, Timeout

from quickstudy.config import Config
from quickstudy.decoding import Decoder
from quickstudy.errors import QuickstudyError
from quickstudy.evals import recording
from quickstudy.evals.benchmarks import train
from quickstudy.evals.ledger import Ledger
from quickstudy.evals.plan import Plan, check, chosen, described, known, tasks_of
from quickstudy.evals.progress import Progress
from quickstudy.evals.recording import Place
from quickstudy.evals.records import Record, Summary
from quickstudy.evals.task import Task
from quickstudy.methods import Item, Method, Named, Workbench, parse
from quickstudy.methods.book import PracticeBook
from quickstudy.methods.supervised import Supervised
from quickstudy.methods.voting import Majority
from quickstudy.model import LanguageModel
from quickstudy.teaching.teacher import Teacher, load_teacher

log = logging.getLogger(__name__)
ENOUGH = 5  # practised records of tt-si after which its cost is known


def evaluate(
    plan: Plan,
    progress: Progress,
    load: Callable[[str, Config], LanguageModel] = lambda spec, c: LanguageModel.load(
        spec, c.model
    ),
) -> Summary:
    """Runs what is not done yet, and writes the summary of all that is.

    Args:
        load: gives the model; it is asked only if there is something to run.

    Raises:
        ConfigError: an unknown method or benchmark, or a run of other settings in `out`.
        DataError, ModelError: data or model cannot be read.
    """
    methods = chosen(plan.methods)
    configs = {m.parent: m.config(plan.file, plan.overrides, plan.seed) for m in methods}
    check(plan, methods, configs)
    tasks = {name: tasks_of(plan, name) for name in known(plan.benchmarks)}
    plan.out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(plan.out / ".lock", timeout=0):
            ledger = Ledger(plan.out, described(plan, methods, configs, list(tasks)))
            places = {
                name: [Place(name, number, task) for number, task in enumerate(chosen)]
                for name, chosen in tasks.items()
            }
            waiting = sum(
                (name, place.task.id, method.name) not in ledger.records
                for name, listed in places.items()
                for place in listed
                for method in methods
            )
            if waiting:
                model = load(plan.model, configs["base"])
                ledger.loaded(model)
                progress.start(waiting)
                _Runner(plan, methods, configs, ledger, model, progress).run(places)
            return ledger.summarised(plan.data)
    except Timeout as error:
        raise QuickstudyError(
            f"another process runs in {plan.out}; wait for it, or name another --out"
        ) from error


@dataclass
class _Runner:
    plan: Plan
    methods: Sequence[Named]
    configs: Mapping[str, Config]
    ledger: Ledger
    model: LanguageModel
    progress: Progress
    teacher: Teacher | None = None
    made: dict[str, Method] = field(default_factory=dict)

    def run(self, places: Mapping[str, Sequence[Place]]) -> None:
        distilled = next((c for c in self.configs.values() if c.method == "tt-d"), None)
        self.teacher = load_teacher(distilled) if distilled else None
        decoder = Decoder(self.model)
        book = PracticeBook(self.plan.out / "practice.jsonl")
        for record in self.ledger.records.values():
            self.progress.seen(record)
        for name, listed in places.items():
            items = {place.task.id: _item(place.task) for place in listed}
            bench = Workbench(
                self.model,
                decoder,
                book,
                list(items.values()),
                lambda: [_item(task) for task in train.load(self.plan.data)],
                self.plan.out / "adapters" / name,
                self.teacher,
                self.ledger.run.samples,
                self.progress.step,
            )
            self.made = {}
            # a vote waits until it is known how much tt-si costs; what waited comes again
            for last in (False, True):
                for place in listed:
                    self._row(bench, place, items[place.task.id], last)

    def _row(self, bench: Workbench, place: Place, item: Item, last: bool) -> None:
        """Every method that is not done yet on one item."""
        unwritten: dict[str, Record] = {}
        for method in self.methods:
            key = place.benchmark, place.task.id, method.name
            if key in self.ledger.records:
                continue
            if method.parent == "majority" and not self._affordable(bench, item, last):
                continue
            if method.repaired:
                parent = self.ledger.records.get((*key[:2], method.parent))
                parent = parent or unwritten.get(method.parent)
                if parent is None:
                    parent = self._answered(bench, place, item, parse(method.parent))
                    unwritten[method.parent] = parent
                record = recording.mended(place, method.name, parent)
            else:
                record = self._answered(bench, place, item, method)
            self.ledger.add(record)
            self.progress.done(record)

    def _answered(self, bench: Workbench, place: Place, item: Item, method: Named) -> Record:
        config = self.configs[method.name]
        answerer = self._method(bench, method)
        try:
            outcome = answerer.answer(item)
            record = recording.record(place, method.name, outcome, bench.decoder)
            if self.plan.probe and method.name == "base" and outcome.draft is not None:
                record = recording.probed(record, bench.decoder, outcome.draft, config)
            return record
        except Exception as error:  # one item's fault must not cost a run of many hours
            if not isinstance(error, QuickstudyError):
                log.exception("%s %s: %s failed", place.benchmark, place.task.id, method.name)
            reason = f"{type(error).__name__}: {error}"
            return recording.failed(place, method.name, reason)

    def _method(self, bench: Workbench, method: Named) -> Method:
        """The method, made once a benchmark; training happens here."""
        if method.name not in self.made:
            made = method.recipe.make(bench, self.configs[method.name])
            self.made[method.name] = made
            if isinstance(made, Supervised):
                took = made.training
                told = {
                    "examples": took.examples,
                    "gradient_steps": took.gradient_steps,
                    "seconds": took.seconds,
                    "peak_rss_mb": took.peak_rss_mb,
                }
                name = f"{bench.folder.name}/{method.name}"
                self.ledger.update(trained={**self.ledger.run.trained, name: told})
        return self.made[method.name]

    def _affordable(self, bench: Workbench, item: Item, last: bool) -> bool:
        """Whether it is known how many samples the seconds of tt-si buy; measured once a run."""
        if bench.samples is None:
            spent = [
                (r.total_seconds - _drafting(r)) / r.seconds["draft"]
                for r in self.ledger.records.values()
                if r.method == "tt-si" and r.practised and r.seconds.get("draft")
            ]
            if not spent or (len(spent) < ENOUGH and not last):
                if not last:
                    return False
                spent = spent or [1.0]
            majority = self._method(bench, parse("majority"))
            assert isinstance(majority, Majority)
            bench.samples = majority.affordable(item, sum(spent) / len(spent))
            self.ledger.update(samples=bench.samples)
        return True


def _drafting(record: Record) -> float:
    return sum(record.seconds.get(stage, 0.0) for stage in ("prefill", "draft", "awareness"))


def _item(task: Task) -> Item:
    return Item(task.request, task.gold)
