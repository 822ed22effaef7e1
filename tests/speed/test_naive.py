"""The usual way computes what it claims, on the same weights, and leaves nothing behind."""

from __future__ import annotations

import warnings

import pytest
import torch

from quickstudy.config import Config
from quickstudy.learning.practice import Lesson
from quickstudy.model import LanguageModel
from quickstudy.speed import naive as naive_module
from quickstudy.speed import workload
from quickstudy.speed.naive import Naive, bare
from quickstudy.types import Request

CONFIG = Config.load(None, ["learning.epochs=2", "decoding.max_new_tokens=4"])
SEQUENCES = [Lesson([5, 6, 7, 8], [9, 10]), Lesson([11, 12], [13, 14, 15])]


@pytest.fixture
def naive(tiny: LanguageModel) -> Naive:
    return Naive(tiny, CONFIG)


def test_bare_network_shares_weights_and_has_no_hooks(tiny: LanguageModel) -> None:
    copied = bare(tiny.network)
    theirs = {p.data_ptr() for p in tiny.network.parameters()}
    assert {p.data_ptr() for p in copied.parameters()} == theirs
    assert any(m._forward_pre_hooks for m in tiny.network.modules())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in copied.modules())


@pytest.mark.parametrize("way", ["with_trainer", "by_hand"])
@pytest.mark.parametrize("batch_tokens", [4096, 1])
def test_training_learns_and_is_unloaded(
    naive: Naive, way: str, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naive_module, "BATCH_TOKENS", batch_tokens)
    before = {n: p.clone() for n, p in naive.model.network.named_parameters()}
    ids = torch.tensor([[*SEQUENCES[0].turn, *SEQUENCES[0].answer]])
    logits = naive.network(ids).logits
    for _ in range(2):  # a second adapter is as fresh as the first
        with warnings.catch_warnings(action="ignore"), naive.adapted(wide=way == "with_trainer") as network:
            getattr(naive, way)(network, SEQUENCES)
            trained = {n: p for n, p in network.named_parameters() if "lora_B" in n}
            assert len(trained) == 14
            assert all(bool(p.detach().abs().sum() > 0) for p in trained.values())
            assert not torch.equal(network(ids).logits, logits)
    assert torch.equal(naive.network(ids).logits, logits)
    assert not naive.network.training
    after = dict(naive.model.network.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_labels_are_of_answers_only(naive: Naive) -> None:
    batch = naive._collate(SEQUENCES)
    assert batch["labels"].tolist() == [[-100] * 4 + [9, 10], [-100] * 2 + [13, 14, 15, -100]]
    assert batch["attention_mask"].sum(dim=1).tolist() == [6, 5]


def test_generate_gives_as_many_tokens_as_told_with_and_without_cache(naive: Naive) -> None:
    model = naive.model
    context = model.prefill(Request.parse("Hello there"))
    ids = [*context.prefix.ids, *context.turn]
    told = naive.generate(naive.network, ids, most=6, least=6)
    assert len(told) == 6
    cached = naive.generate(naive.network, ids, most=6, least=6, cache=context.prefix.fork())
    assert cached == told


def test_pipeline_tells_its_stages(naive: Naive) -> None:
    request = workload.scenarios()["short"].requests[0]
    with warnings.catch_warnings(action="ignore"):
        told = naive.pipeline(request, SEQUENCES)
    seconds = told["stages"]
    assert list(seconds) == ["draft", "synthesis", "practice", "answer", "reset"]
    assert all(spent > 0 for spent in seconds.values())
