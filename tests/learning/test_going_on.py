"""An adapter that goes on from one practice to the next, instead of a fresh one."""

from __future__ import annotations

import math

import pytest
import torch

from quickstudy.config import LearningConfig
from quickstudy.decoding import Deadline
from quickstudy.learning.lora import AdapterBank
from quickstudy.learning.practice import (
    Lesson,
    Practice,
    Study,
    fresh_adapters,
    practised_together,
)
from quickstudy.model import LanguageModel

CONFIG = LearningConfig(rank=2, epochs=2, learning_rate=1e-2, stop_loss=0)
LESSONS = [Lesson([1, 2, 3], [4, 5]), Lesson([6, 7], [8, 9, 10])]


def practise(
    model: LanguageModel, *adapters: AdapterBank | None, config: LearningConfig = CONFIG
) -> list[Practice]:
    """Every adapter practises its own lesson; None is a fresh one."""
    studies = [
        Study(model.empty_prefix(), [lesson], adapter)
        for lesson, adapter in zip(LESSONS, adapters, strict=False)
    ]
    with practised_together(
        model, studies, config, informative_loss=0, seed=0, deadline=Deadline()
    ) as (_, outcomes):
        return outcomes


def values(bank: AdapterBank) -> torch.Tensor:
    return torch.cat([part.flatten() for part in bank.master.values()])


def test_it_goes_on_where_it_was(tiny: LanguageModel) -> None:
    kept = fresh_adapters(tiny, CONFIG, 0)
    start = values(kept)
    first = practise(tiny, kept)[0]
    after_first = values(kept)
    assert not torch.equal(after_first, start)
    second = practise(tiny, kept)[0]
    assert not torch.equal(values(kept), after_first)
    assert first.losses == practise(tiny, None)[0].losses  # a fresh one is drawn alike
    assert second.losses[0] < first.losses[-1]


def test_beside_others_each_goes_its_own_way(tiny: LanguageModel) -> None:
    alone, beside = (fresh_adapters(tiny, CONFIG, 0) for _ in range(2))
    for _ in range(2):
        practise(tiny, alone)
        practise(tiny, beside, None)
    torch.testing.assert_close(values(beside), values(alone), rtol=1e-4, atol=1e-5)
    first = fresh_adapters(tiny, CONFIG, 0)
    second = fresh_adapters(tiny, CONFIG, 0)
    practise(tiny, first, second)
    assert (values(first) - values(second)).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore")
def test_what_goes_wrong_is_not_kept(tiny: LanguageModel) -> None:
    kept = fresh_adapters(tiny, CONFIG, 0)
    start = values(kept)
    (told,) = practise(tiny, kept, config=CONFIG.model_copy(update={"learning_rate": math.inf}))
    assert told.failure is not None
    assert torch.equal(values(kept), start)
