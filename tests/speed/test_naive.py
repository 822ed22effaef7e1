"""The usual way computes what it claims, on the same weights, and leaves nothing behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from quickstudy import attention, narrow
from quickstudy.config import Config
from quickstudy.learning.practice import Lesson
from quickstudy.model import LanguageModel
from quickstudy.speed import batches, workload
from quickstudy.speed.bare import bare
from quickstudy.speed.batches import collate
from quickstudy.speed.naive import Naive
from quickstudy.types import Request

CONFIG = Config.load(None, ["learning.epochs=2", "decoding.max_new_tokens=4"])
LEARNING_RATE = CONFIG.learning.learning_rate
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


def test_bare_network_computes_with_nothing_of_ours(tiny: LanguageModel) -> None:
    attention.install(tiny.network)
    narrow.install(tiny.network, ordered=False)
    assert any("forward" in m.__dict__ for m in tiny.network.modules())
    copied = bare(tiny.network)
    assert not any("forward" in m.__dict__ for m in copied.modules())
    assert narrow.copied_bytes(copied) == 0 < narrow.copied_bytes(tiny.network)
    assert copied.config._attn_implementation == "sdpa"
    assert tiny.network.config._attn_implementation == attention.NAME


@pytest.mark.parametrize("way", ["with_trainer", "by_hand"])
@pytest.mark.parametrize("batch_tokens", [4096, 1])
def test_training_learns_and_is_unloaded(
    naive: Naive, way: str, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_TOKENS", batch_tokens)
    before = {n: p.clone() for n, p in naive.model.network.named_parameters()}
    ids = torch.tensor([[*SEQUENCES[0].turn, *SEQUENCES[0].answer]])
    logits = naive.network(ids).logits
    for _ in range(2):  # a second adapter is as fresh as the first
        with (
            warnings.catch_warnings(action="ignore"),
            naive.adapted(wide=way == "with_trainer") as network,
        ):
            getattr(naive, way)(network, SEQUENCES)
            trained = {n: p for n, p in network.named_parameters() if "lora_B" in n}
            assert len(trained) == 14
            assert {p.shape[1] for p in trained.values()} == {CONFIG.learning.rank}
            assert all(bool(p.detach().abs().sum() > 0) for p in trained.values())
            assert not torch.equal(network(ids).logits, logits)
    assert torch.equal(naive.network(ids).logits, logits)
    assert not naive.network.training
    after = dict(naive.model.network.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("way", ["with_trainer", "by_hand"])
@pytest.mark.parametrize("batch_tokens", [4096, 1])
def test_training_takes_every_step(
    naive: Naive, way: str, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_TOKENS", batch_tokens)
    with steps() as taken, warnings.catch_warnings(action="ignore"):
        naive.practise(getattr(naive, way), SEQUENCES, wide=False)
    assert len(taken) == CONFIG.learning.epochs == 2
    assert {optimizer.param_groups[0]["lr"] for optimizer in taken} == {LEARNING_RATE}


@contextmanager
def steps() -> Iterator[list[torch.optim.Optimizer]]:
    """The optimizer of each step taken inside."""
    taken: list[torch.optim.Optimizer] = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: taken.append(optimizer))
    try:
        yield taken
    finally:
        handle.remove()


def test_wide_adapters_are_pefts_default(make_tiny: Callable[..., LanguageModel]) -> None:
    naive = Naive(make_tiny(torch.bfloat16), CONFIG)
    for wide, dtype in ((True, torch.float32), (False, torch.bfloat16)):
        with warnings.catch_warnings(action="ignore"), naive.adapted(wide=wide) as network:
            trained = {p.dtype for n, p in network.named_parameters() if "lora_" in n}
        assert trained == {dtype}


def test_the_loop_takes_the_gradients_of_the_whole_sequence(
    naive: Naive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of a part of the positions give the loss that all of them give."""
    batch = collate(SEQUENCES, pad=0)
    asked: list[int] = []
    told: list[float] = []

    def note(module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        asked.append(outputs.logits.shape[1])
        told.append(float(outputs.loss))

    with warnings.catch_warnings(action="ignore"), naive.adapted(wide=False) as network:
        whole = float(network(**batch).loss)
        handle = network.get_base_model().register_forward_hook(note)
        naive.by_hand(network, SEQUENCES)
        handle.remove()
    assert asked == [5, 5]  # from the last token of the shortest turn on; the longest row has 6
    assert told[0] == pytest.approx(whole, rel=1e-5)


def test_labels_are_of_answers_only() -> None:
    batch = collate(SEQUENCES, pad=0)
    assert batch["labels"].tolist() == [[-100] * 4 + [9, 10], [-100] * 2 + [13, 14, 15, -100]]
    assert batch["attention_mask"].sum(dim=1).tolist() == [6, 5]


def test_generate_gives_as_many_tokens_as_told_with_and_without_cache(
    naive: Naive, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = naive.model
    context = model.prefill(Request.parse("Hello there"))
    ids = [*context.prefix.ids, *context.turn]
    told = naive.generate(naive.network, ids, most=6, least=6)
    assert len(told) == 6
    # as many, too, where the model would end at once
    monkeypatch.setitem(model.__dict__, "eos_ids", frozenset(told))
    least = naive.generate(naive.network, ids, most=6, least=6)
    assert len(least) == 6
    assert len(naive.generate(naive.network, ids, most=6)) == 1
    monkeypatch.undo()
    cached = naive.generate(naive.network, ids, most=6, least=6, cache=context.prefix.fork())
    assert cached == told


def test_pipeline_drafts_trains_and_answers_with_what_it_trained(
    naive: Naive, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = workload.scenarios()["short"].requests[0]
    met: list[tuple[bool, int, int]] = []
    generate = Naive.generate

    def noted(self: Naive, network: Any, ids: Any, *, most: int) -> list[int]:
        adapted = [p for n, p in network.named_parameters() if "lora_B" in n]
        moved = bool(adapted) and all(bool(p.abs().sum() > 0) for p in adapted)
        met.append((moved, len(ids), most))
        return generate(self, network, ids, most=most)

    monkeypatch.setattr(Naive, "generate", noted)
    with warnings.catch_warnings(action="ignore"), steps() as taken:
        told = naive.pipeline(request, SEQUENCES)
    prompt = len(naive.model.render(request.messages, request.tools))
    limit = CONFIG.decoding.max_new_tokens
    assert met == [(False, prompt, limit), (True, prompt, limit)]  # the draft, the answer
    assert len(taken) == told["steps"] == CONFIG.learning.epochs
    assert told["examples"] == 2
    assert told["tokens"]["synthesis"] % 2 == 0
    assert told["tokens"]["synthesis"] > 0
    seconds = told["stages"]
    assert list(seconds) == ["draft", "synthesis", "practice", "answer", "reset"]
    assert all(spent > 0 for spent in seconds.values())
