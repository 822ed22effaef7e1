"""Rows about practice alone: against the naive way, a single step's efficiency, and curves.

Practice is on the fixed examples, takes every step (no early stop) and is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from quickstudy.config import LearningConfig
from quickstudy.decoding import Deadline
from quickstudy.learning.lora import target_layers
from quickstudy.learning.practice import Lesson, Study, practised, practised_together
from quickstudy.model import LanguageModel, Prefix
from quickstudy.speed.flops import practice_work
from quickstudy.speed.measure import Work
from quickstudy.speed.naive import Naive, Train
from quickstudy.speed.setting import Setting
from quickstudy.speed.workload import PRACTICE, Scenario, lessons, sequences

BANK = 8  # adapters trained together
# few and many, of a step's cost: far apart, for a machine's noise can be as long as two steps
EPOCHS = {1: (2, 12), BANK: (1, 5)}  # a bank's step takes long
QUICK_EPOCHS = {1: (1, 2), BANK: (1, 2)}


def against_naive(setting: Setting) -> None:
    """Row `practice`: the same examples and steps, naive and ours, at every prefix length."""
    model, learning = setting.model, _every_step(setting.config.learning)
    naive = Naive(model, setting.config)
    for scenario in setting.lengths:
        prefix, told, whole = _prepared(model, scenario, setting.config.augmentation.examples)
        full = learning.model_copy(update={"mode": "full"})
        activated = learning.model_copy(update={"mode": "activated"})
        every = activated.model_copy(update={"upper_layers": 1.0})
        setting.recorder.paired(
            "practice",
            {"prefix": scenario.name, "prefix_tokens": len(prefix.ids), "K": len(told)},
            {
                "naive-trainer": _naive(naive, naive.with_trainer, whole, wide=True),
                "naive-loop": _naive(naive, naive.by_hand, whole, wide=False),
                "ours-full": _practice(model, prefix, told, full),
                "ours-all-layers": _practice(model, prefix, told, every),
                "ours-activated": _practice(model, prefix, told, activated),
            },
        )


def one_step(setting: Setting) -> None:
    """Row `step`: what a gradient step takes, as the difference that more steps make.

    The bank of adapters only at the shortest prefix and at the longest: what is between them is
    between them in cost as well.
    """
    model, usual = setting.model, min(setting.config.augmentation.examples, PRACTICE)
    ends = (setting.lengths[0], setting.lengths[-1])
    for scenario in setting.lengths:
        for count in sorted({usual, PRACTICE}):
            _few_and_many(setting, scenario, count, 1, partial(_practice, model))
        if scenario in ends:
            _few_and_many(setting, scenario, usual, BANK, partial(_bank, model))


def _few_and_many(
    setting: Setting, scenario: Scenario, count: int, bank: int, way: Callable[..., Work]
) -> None:
    """One cell of row `step`: practice of `bank` adapters on `count` examples each."""
    learning = _every_step(setting.config.learning)
    prefix, told, _ = _prepared(setting.model, scenario, count)
    steps = (QUICK_EPOCHS if setting.quick else EPOCHS)[bank]
    setting.recorder.paired(
        "step",
        {"prefix": scenario.name, "K": count, "B": bank},
        {
            name: way(prefix, told, learning.model_copy(update={"epochs": epochs}))
            for name, epochs in zip(("few", "many"), steps, strict=True)
        },
    )


def curves(setting: Setting) -> None:
    """Row `curves`: practice against K, rank and steps, one of them varied at a time."""
    model, learning = setting.model, _every_step(setting.config.learning)
    scenario = setting.lengths[0]
    prefix, told, _ = _prepared(model, scenario, PRACTICE)
    usual = told[: setting.config.augmentation.examples]
    variants: dict[str, Work] = {}
    for count in range(1, len(told) + 1):
        variants[f"K={count}"] = _practice(
            model, prefix, told[:count], learning, {"axis": "K", "value": count}
        )
    axes: Mapping[str, tuple[str, Sequence[int]]] = {
        "rank": ("rank", (4, 8, 16) if setting.quick else (4, 8, 16, 32, 64)),
        "steps": ("epochs", (1, 2) if setting.quick else (1, 2, 4, 8)),
    }
    for axis, (field, values) in axes.items():
        for value in values:
            varied = learning.model_copy(update={field: value})
            variants[f"{axis}={value}"] = _practice(
                model, prefix, usual, varied, {"axis": axis, "value": value}
            )
    setting.recorder.paired("curves", {"prefix": scenario.name}, variants)


def _every_step(learning: LearningConfig) -> LearningConfig:
    """Without the early stop, so that a time does not depend on what the model knows already."""
    return learning.model_copy(update={"stop_loss": 0})


def _prepared(
    model: LanguageModel, scenario: Scenario, count: int
) -> tuple[Prefix, list[Lesson], list[Lesson]]:
    """The prefix, run once; the lessons after it; and the same as whole sequences."""
    context = model.prefill(scenario.requests[0])
    told = lessons(model, context, scenario.practice[:count])
    return context.prefix, told, sequences(context.prefix, told)


def _naive(naive: Naive, train: Train, whole: Sequence[Lesson], *, wide: bool) -> Work:
    return lambda _: naive.practise(train, whole, wide=wide)


def _practice(
    model: LanguageModel,
    prefix: Prefix,
    told: Sequence[Lesson],
    learning: LearningConfig,
    more: Mapping[str, Any] | None = None,
) -> Work:
    full = learning.mode == "full"
    counted = sequences(prefix, told) if full else told

    def work(_: int) -> Mapping[str, Any]:
        with practised(
            model,
            prefix,
            told,
            learning,
            informative_loss=0,
            seed=0,
            deadline=Deadline(),
        ) as practice:
            steps = len(practice.losses)
        layers = target_layers(model.network, learning.targets, learning.upper_layers)
        adapted = [name for name, _ in layers]
        needs = practice_work(
            model.network, adapted, learning.rank, 0 if full else len(prefix.ids), counted
        )
        return {
            "steps": steps,
            "flops_once": needs.once,
            "flops_step": needs.step,
            **(more or {}),
        }

    return work


def _bank(
    model: LanguageModel, prefix: Prefix, told: Sequence[Lesson], learning: LearningConfig
) -> Work:
    """`BANK` adapters at once, each on the same lessons."""
    layers = target_layers(model.network, learning.targets, learning.upper_layers)
    adapted = [name for name, _ in layers]

    def work(_: int) -> Mapping[str, Any]:
        with practised_together(
            model,
            [Study(prefix, told)] * BANK,
            learning,
            informative_loss=0,
            seed=0,
            deadline=Deadline(),
        ) as (_bank, practices):
            steps = len(practices[0].losses)
        needs = practice_work(
            model.network, adapted, learning.rank, len(prefix.ids), [*told] * BANK
        )
        return {"steps": steps, "flops_once": needs.once, "flops_step": needs.step}

    return work
