"""Learning: train a fresh adapter on a few examples, answer inside the block, forget.

    with practised(model, context, examples, ...) as practice:
        ...  # the network answers with what it has practised
    # the network is what it was before, after success, error and Ctrl-C alike

Knows nothing about where examples come from. Loss: mean negative log-likelihood (nats a token)
of the answer tokens alone; the examples of a step are one padded batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from quickstudy.config import LearningConfig
from quickstudy.decoding import Deadline
from quickstudy.errors import NoExamples, PracticeDiverged
from quickstudy.learning.lora import Adapter
from quickstudy.model import LanguageModel, Prefix


@dataclass(frozen=True)
class Lesson:
    """An example as tokens: what follows the shared prefix, and the answer to learn."""

    turn: Sequence[int]
    answer: Sequence[int]


@dataclass(frozen=True)
class Practice:
    """What practice did. `losses` (nats a token) are told before each step.

    `known` are the indices of lessons whose loss was below `informative_loss` when they were
    first met: they were left out.
    """

    adapter: Adapter
    losses: tuple[float, ...]
    known: tuple[int, ...]


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
    adapter: Adapter | None = None,
) -> Iterator[Practice]:
    """Trains a fresh adapter on the lessons and keeps it attached inside the block.

    Args:
        adapter: trained on instead of a fresh one; it keeps what it learns.

    Raises:
        NoExamples: if the model already answers every lesson.
        PracticeDiverged: if a loss or a weight is not finite.
        BudgetSpent: if the deadline passes between two steps.
    """
    with _frozen(model.network):
        adapter = adapter or fresh_adapter(model, config, seed)
        with adapter.attached():
            losses, known = _train(
                model, prefix, lessons, adapter, config, informative_loss, deadline
            )
            yield Practice(adapter, losses, known)


def fresh_adapter(model: LanguageModel, config: LearningConfig, seed: int) -> Adapter:
    return Adapter(
        model.network,
        rank=config.rank,
        alpha=config.alpha,
        targets=config.targets,
        generator=torch.Generator().manual_seed(seed),
    )


def _train(
    model: LanguageModel,
    prefix: Prefix,
    lessons: Sequence[Lesson],
    adapter: Adapter,
    config: LearningConfig,
    informative_loss: float,
    deadline: Deadline,
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    optimizer = torch.optim.AdamW(
        adapter.parameters(), lr=config.learning_rate, weight_decay=0.0, foreach=True
    )
    size = config.batch_size or len(lessons)
    rate = schedule(optimizer, config, config.epochs * math.ceil(len(lessons) / size))
    losses: list[float] = []
    known: set[int] = set()
    steps = 0
    for epoch in range(config.epochs):
        before = steps
        kept = [i for i in range(len(lessons)) if i not in known]
        for batch in (kept[start : start + size] for start in range(0, len(kept), size)):
            deadline.check()
            each = lesson_losses(model, prefix, [lessons[i] for i in batch], config.mode)
            if epoch == 0:  # what the model knows without having practised the example
                # not `>=`: a loss that is no number is not known, it is the fault told below
                new = [not each[n].item() < informative_loss for n in range(len(batch))]
                known.update(i for i, is_new in zip(batch, new, strict=True) if not is_new)
                if not any(new):
                    continue
                each = each[torch.tensor(new, device=each.device)]
            loss = each.mean()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise PracticeDiverged(f"the practice loss is {losses[-1]} at step {steps + 1}")
            if losses[-1] < config.stop_loss:
                continue
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
        if steps == before:
            break
    if steps == 0:
        raise NoExamples("the model already answers every practice example")
    # the last step has no loss after it to show that it went wrong
    if not all(bool(weight.isfinite().all()) for weight in adapter.parameters()):
        raise PracticeDiverged("practice made a weight that is not finite")
    return tuple(losses), tuple(sorted(known))


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


def lesson_losses(
    model: LanguageModel, prefix: Prefix, lessons: Sequence[Lesson], mode: str
) -> torch.Tensor:
    """Mean negative log-likelihood a token of each lesson's answer: (lessons,), nats.

    Activated mode continues the prefix cache, so the adapter acts on turn and answer only; full
    mode runs the whole sequence through the adapter.
    """
    full = mode == "full"
    told, mask = model.answer_log_probs(
        None if full else prefix.fork(len(lessons)),
        [[*prefix.ids, *lesson.turn] if full else lesson.turn for lesson in lessons],
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
