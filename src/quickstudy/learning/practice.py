"""Learning: train fresh adapters on a few examples each, answer inside the block, forget.

    with practised(model, prefix, lessons, ...) as practice:
        ...  # the network answers with what it has practised
    # the network is what it was before, after success, error and Ctrl-C alike

Knows nothing about where examples come from. Loss: mean negative log-likelihood (nats a token)
of the answer tokens alone; the examples of a step are one padded batch. `practised_together`
trains the adapters of several requests in the same passes, each as if it were alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quickstudy import halves
from quickstudy.config import LearningConfig
from quickstudy.decoding import Deadline
from quickstudy.errors import NoExamples, PracticeDiverged, PracticeFailed
from quickstudy.learning.lora import AdapterBank, first_layer
from quickstudy.learning.loss import token_losses
from quickstudy.model import LanguageModel, Prefix, start

# Of a training pass over several adapters' lessons on a CPU: more tokens no longer fit near the
# cores (LOG.md).
PASS_TOKENS = 640
PASS_SCORES = 1 << 18  # tokens times the keys that they attend to, likewise


@dataclass(frozen=True)
class Lesson:
    """An example as tokens: what follows the shared prefix, and the answer to learn."""

    turn: Sequence[int]
    answer: Sequence[int]


@dataclass(frozen=True)
class Study:
    """What one adapter practises.

    `adapter` (a bank of one): where it goes on from, and what keeps what it learns; None: a fresh
    one that nothing is kept of.
    """

    prefix: Prefix
    lessons: Sequence[Lesson]
    adapter: AdapterBank | None = None


@dataclass
class Practice:
    """What practice did to one adapter. `losses` (nats a token, finite) are told before each step.

    `known` are the indices of lessons whose loss was below `informative_loss` when they were
    first met: they were left out. `failure`: why the adapter is not to be used.
    """

    losses: list[float] = field(default_factory=list)
    known: list[int] = field(default_factory=list)
    failure: PracticeFailed | None = None


@contextmanager
def practised(
    model: LanguageModel,
    prefix: Prefix,
    lessons: Sequence[Lesson],
    config: LearningConfig,
    *,
    informative_loss: float,
    seed: int,
    deadline: Deadline,
) -> Iterator[Practice]:
    """Trains a fresh adapter on the lessons and keeps it attached inside the block.

    Raises:
        NoExamples: if the model already answers every lesson.
        PracticeDiverged: if a loss or a weight is not finite.
        BudgetSpent: if the deadline passes between two steps.
    """
    with practised_together(
        model,
        [Study(prefix, lessons)],
        config,
        informative_loss=informative_loss,
        seed=seed,
        deadline=deadline,
    ) as (_, (practice,)):
        if practice.failure:
            raise practice.failure
        yield practice


@contextmanager
def practised_together(
    model: LanguageModel,
    studies: Sequence[Study],
    config: LearningConfig,
    *,
    informative_loss: float,
    seed: int,
    deadline: Deadline,
) -> Iterator[tuple[AdapterBank, list[Practice]]]:
    """Trains an adapter a study and keeps the bank attached inside the block.

    Inside, `bank.assign` must say which adapter each row of a batch goes through. A study that
    fails says so in its `Practice` and leaves the others alone.

    Raises:
        BudgetSpent: if the deadline passes between two steps.
    """
    with _frozen(model.network):
        bank = fresh_adapters(model, config, seed, len(studies))
        for n, study in enumerate(studies):
            if study.adapter:
                bank.copy(n, study.adapter, 0)
        with bank.attached():
            outcomes = _train(model, studies, bank, config, informative_loss, deadline)
            for n, (study, practice) in enumerate(zip(studies, outcomes, strict=True)):
                if study.adapter and practice.failure is None:
                    study.adapter.copy(0, bank, n)
            yield bank, outcomes


def fresh_adapters(
    model: LanguageModel, config: LearningConfig, seed: int, count: int = 1
) -> AdapterBank:
    return AdapterBank(
        model.network,
        rank=config.rank,
        alpha=config.alpha,
        targets=config.targets,
        # each draws what it would draw alone
        generators=[torch.Generator().manual_seed(seed) for _ in range(count)],
        upper=config.upper_layers,
    )


def _train(
    model: LanguageModel,
    studies: Sequence[Study],
    bank: AdapterBank,
    config: LearningConfig,
    informative_loss: float,
    deadline: Deadline,
) -> list[Practice]:
    first_row = [0]
    for study in studies:
        first_row.append(first_row[-1] + len(study.lessons))
    losses = Losses(model, studies, config)
    learners = [
        _Learner(bank.parameters(n), len(study.lessons), config, informative_loss)
        for n, study in enumerate(studies)
    ]
    waiting = dict(enumerate(learners))
    while True:
        batches = {n: batch for n in waiting if (batch := waiting[n].next_batch())}
        waiting = {n: learners[n] for n in batches}
        if not waiting:
            break
        stepped = []
        for group in losses.groups(batches):
            deadline.check()
            rows = [first_row[n] + i for n in group for i in batches[n]]
            bank.assign([n for n in group for _ in batches[n]])
            each = torch.split(losses.of(rows), [len(batches[n]) for n in group])
            judged = {n: learners[n].judge(part) for n, part in zip(group, each, strict=True)}
            stepping = {n: loss for n, loss in judged.items() if loss is not None}
            if stepping:
                # each adapter's gradient is its own loss's alone: no other depends on it
                torch.stack([*stepping.values()]).sum().backward()  # type: ignore[no-untyped-call]
            stepped += list(stepping)
        for n in stepped:
            learners[n].step(bank.gradients(n))
        if stepped:
            bank.zero_gradient()
            bank.sync()
    return [learner.result() for learner in learners]


class _Learner:
    """The course of one adapter: which lessons come next, and when it has learnt them."""

    def __init__(
        self,
        parameters: list[Tensor],
        lessons: int,
        config: LearningConfig,
        informative_loss: float,
    ) -> None:
        self.parameters, self.config = parameters, config
        self.informative_loss = informative_loss
        self.practice = Practice()
        self.steps = 0
        self._lessons = lessons
        self._first = True  # no lesson has been met twice yet
        self._learnt = False  # all losses of this epoch are small
        self._batches = self._course()
        self._batch: list[int] = []
        size = config.batch_size or lessons
        self._optimizer = torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            weight_decay=0.0,
            fused=parameters[0].device.type in ("cpu", "cuda"),
        )
        planned = config.epochs * math.ceil(lessons / size)
        self._rate = schedule(self._optimizer, config, planned)

    def next_batch(self) -> list[int]:
        """Indices of the lessons of the next pass; empty at the end."""
        self._batch = next(self._batches, [])
        return self._batch

    def _course(self) -> Iterator[list[int]]:
        size = self.config.batch_size or self._lessons
        for epoch in range(self.config.epochs):
            before, self._first, self._learnt = self.steps, epoch == 0, True
            kept = [i for i in range(self._lessons) if i not in self.practice.known]
            for place in range(0, len(kept), size):
                yield kept[place : place + size]
                if self.practice.failure:
                    return
            # a step on so small a loss is the last: to look once more costs as much as a step
            if self.steps == before or self._learnt:
                return

    def judge(self, each: Tensor) -> Tensor | None:
        """The loss to step on, of the losses of the batch's lessons; None: no step."""
        if self._first:  # what the model knows without having practised the example
            # not `>=`: a loss that is no number is not known, it is the fault told below
            new = [not loss < self.informative_loss for loss in each.tolist()]
            self.practice.known += [
                i for i, is_new in zip(self._batch, new, strict=True) if not is_new
            ]
            if not any(new):
                return None
            each = each[torch.tensor(new, device=each.device)]
        loss = each.mean()
        value = loss.item()
        if not math.isfinite(value):
            told = f"the practice loss is {value} at step {self.steps + 1}"
            self.practice.failure = PracticeDiverged(told)
            return None
        self.practice.losses.append(value)
        self._learnt = self._learnt and value < self.config.stop_loss
        return loss

    def step(self, gradients: Sequence[Tensor]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._rate.step()
        self.steps += 1

    def _finite(self) -> bool:
        return all(bool(parameter.isfinite().all()) for parameter in self.parameters)

    def result(self) -> Practice:
        practice = self.practice
        practice.known.sort()
        # the last step has no loss after it to show that it went wrong
        if practice.failure is None and not self._finite():
            practice.failure = PracticeDiverged("practice made a weight that is not finite")
        if practice.failure is None and self.steps == 0:
            practice.failure = NoExamples("the model already answers every practice example")
        return practice


def schedule(
    optimizer: torch.optim.Optimizer, config: LearningConfig, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate over `steps` steps, as transformers' Trainer reads the same settings.

    Its first step of a warm-up has the rate 0. Fewer steps than planned are taken where lessons
    are known or learnt early; the rate falls as planned all the same.
    """
    rising = math.ceil(steps * config.warmup)

    def share(step: int) -> float:
        if step < rising:
            return step / rising
        if config.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


@dataclass(frozen=True)
class _Group:
    """Studies that share passes. `places`: which of all lessons is which row of `halfway`."""

    studies: Sequence[int]
    places: Mapping[int, int]
    halfway: halves.Halfway | None


class Losses:
    """The losses of all lessons of all studies, step after step.

    Studies share passes in groups of similar length, for in a pass all are padded to the longest.
    What the layers below the adapters make of the lessons is kept from the first step on.
    Networks of an unusual build take the reference path, `lesson_losses`.
    """

    def __init__(
        self, model: LanguageModel, studies: Sequence[Study], config: LearningConfig
    ) -> None:
        self.model, self.mode = model, config.mode
        self.lessons = [(study.prefix, lesson) for study in studies for lesson in study.lessons]
        first = first_layer(model.network, config.upper_layers)
        self.parts = [self._group(studies, own, first) for own in self._parts(studies)]

    def _parts(self, studies: Sequence[Study]) -> Iterator[list[int]]:
        """The studies, the shortest first, as many at once as a pass is good for."""
        on_cpu, part = self.model.device.type == "cpu", list[int]()
        for n in sorted(range(len(studies)), key=lambda n: self._tokens(studies[n])):
            if part and on_cpu and not self._fit([studies[i] for i in (*part, n)]):
                yield part
                part = []
            part.append(n)
        yield part

    def _tokens(self, study: Study) -> int:
        """What a pass is fed of the longest lesson."""
        longest = max(len(lesson.turn) + len(lesson.answer) for lesson in study.lessons)
        return longest + (len(study.prefix.ids) if self.mode == "full" else 0)

    def _fit(self, studies: Sequence[Study]) -> bool:
        tokens = max(self._tokens(study) for study in studies)
        cached = max(len(study.prefix.ids) for study in studies)
        keys = tokens + (0 if self.mode == "full" else cached)
        fed = tokens * sum(len(study.lessons) for study in studies)
        return fed <= PASS_TOKENS and fed * keys <= PASS_SCORES

    def _group(self, studies: Sequence[Study], own: Sequence[int], first: int) -> _Group:
        rows = list[int]()
        for n in own:
            before = sum(len(study.lessons) for study in studies[:n])
            rows += range(before, before + len(studies[n].lessons))
        places, halfway = {row: place for place, row in enumerate(rows)}, None
        if halves.divisible(self.model):
            lessons, full = [self.lessons[row] for row in rows], self.mode == "full"
            empty = self.model.empty_prefix()
            halfway = halves.lower(
                self.model,
                start([empty if full else prefix for prefix, _ in lessons]),
                [
                    [*(prefix.ids if full else ()), *lesson.turn, *lesson.answer]
                    for prefix, lesson in lessons
                ],
                first,
            )
        return _Group(own, places, halfway)

    def groups(self, batches: Mapping[int, Sequence[int]]) -> Iterator[list[int]]:
        """The studies that still practise, those together that share a pass."""
        for group in self.parts:
            if own := [n for n in group.studies if n in batches]:
                yield own

    def of(self, rows: Sequence[int]) -> Tensor:
        """Mean negative log-likelihood a token of the answers of some rows: (rows,), nats.

        The rows, which are places in `lessons`, are those of one group.
        """
        lessons = [self.lessons[row] for row in rows]
        group = next(group for group in self.parts if rows[0] in group.places)
        if group.halfway is None:
            prefixes = [prefix for prefix, _ in lessons]
            return lesson_losses(self.model, prefixes, [lesson for _, lesson in lessons], self.mode)
        hidden = halves.upper(self.model, group.halfway, [group.places[row] for row in rows])
        lengths = [len(lesson.answer) for _, lesson in lessons]
        # the token at t is told by the place before it
        telling = torch.cat([row[-1 - n : -1] for row, n in zip(hidden, lengths, strict=True)])
        told = [token for _, lesson in lessons for token in lesson.answer]
        targets = torch.tensor(told, device=hidden.device)
        head = self.model.network.get_output_embeddings()
        each = torch.split(token_losses(telling, head, targets), lengths)
        return torch.stack([losses.mean() for losses in each])


def lesson_losses(
    model: LanguageModel, prefixes: Sequence[Prefix], lessons: Sequence[Lesson], mode: str
) -> Tensor:
    """Mean negative log-likelihood a token of each lesson's answer: (lessons,), nats.

    The reference: one plain pass of the network. Activated mode continues the prefix caches, so
    the adapter acts on turn and answer only; full mode runs the whole sequence through it.
    """
    full = mode == "full"
    told, mask = model.answer_log_probs(
        None if full else start(prefixes),
        [
            [*prefix.ids, *lesson.turn] if full else lesson.turn
            for prefix, lesson in zip(prefixes, lessons, strict=True)
        ],
        [lesson.answer for lesson in lessons],
    )
    return -(told * mask).sum(-1) / mask.sum(-1)


@contextmanager
def _frozen(network: torch.nn.Module) -> Iterator[None]:
    """No gradient for the network's own weights inside; their flags as before outside."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
