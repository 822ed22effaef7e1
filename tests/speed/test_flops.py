"""The count of operations, against torch's own counter where nothing can be left out."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from quickstudy.learning.lora import AdapterBank, target_layers
from quickstudy.learning.practice import Lesson, lesson_losses
from quickstudy.model import LanguageModel, Prefix
from quickstudy.speed.flops import practice_work, prefill_work, weight_bytes

RANK, PREFIX, TURN, ANSWER, ROWS = 4, 24, 9, 5, 3
TOKENS = TURN + ANSWER
WIDE = 64  # heads x head size of the tiny model


def counted(model: LanguageModel, prefix: Prefix, targets: str) -> tuple[dict[str, int], list[str]]:
    """Operations of one forward and backward pass by kind, and what is adapted."""
    model.network.set_attn_implementation("eager")  # the counter knows no fused CPU attention
    lessons = [Lesson(list(range(TURN)), list(range(ANSWER)))] * ROWS
    generator = torch.Generator().manual_seed(0)
    adapter = AdapterBank(
        model.network,
        rank=RANK,
        alpha=8,
        targets=targets,  # type: ignore[arg-type]
        generators=[generator],
    )
    with FlopCounterMode(display=False) as counter, adapter.attached():
        lesson_losses(model, [prefix] * len(lessons), lessons, "activated").mean().backward()
    told = counter.get_flop_counts()["Global"]
    return {str(kind): int(count) for kind, count in told.items()}, list(adapter.layers)


@pytest.mark.parametrize("targets", ["all-linear", "attention"])
@pytest.mark.parametrize("cached", [0, PREFIX])
def test_count_is_that_of_torch(tiny: LanguageModel, targets: str, cached: int) -> None:
    cache = tiny.empty_prefix().cache
    if cached:
        tiny.network(torch.ones(1, cached, dtype=torch.long), past_key_values=cache)
    found, adapted = counted(tiny, Prefix((1,) * cached, cache), targets)
    lessons = [Lesson([0] * TURN, [0] * ANSWER)] * ROWS
    work = practice_work(tiny.network, adapted, RANK, cached, lessons)
    # the network tells one logit more a row, which no answer token needs
    logits = work.logits * (ANSWER + 1) / ANSWER
    adapted_layers = [
        layer for name, layer in target_layers(tiny.network, "all-linear") if name in adapted
    ]
    # what an adapter adds in place, which the counter does not know
    unseen = sum(2 * ROWS * TOKENS * RANK * layer.out_features for layer in adapted_layers)
    counted_ = found["aten.mm"] + found["aten.addmm"] + unseen
    assert counted_ == work.linear + work.adapters + logits
    assert work.once == 0
    # torch multiplies with keys that the mask hides as well, and back to cached ones
    dense = 2 * 12 * ROWS * WIDE * TOKENS * (cached + TOKENS)
    rotary = found["aten.bmm"] - dense
    assert 0 <= rotary < 0.02 * dense
    hidden = 2 * ROWS * WIDE * (12 * TOKENS * (TOKENS - 1) / 2 + 4 * TOKENS * cached)
    assert work.attention == dense - hidden


def test_layers_below_the_adapters_are_needed_once(tiny: LanguageModel) -> None:
    names = [name for name, _ in target_layers(tiny.network, "all-linear")]
    upper = [name for name in names if ".layers.1." in name]
    lessons = [Lesson([0] * TURN, [0] * ANSWER)] * ROWS
    whole = practice_work(tiny.network, names, RANK, PREFIX, lessons)
    half = practice_work(tiny.network, upper, RANK, PREFIX, lessons)
    # both layers are alike: the lower one's forward pass, and the upper one as if it were all
    sizes = sum(
        m.in_features * m.out_features
        for n, m in target_layers(tiny.network, "all-linear")
        if n in upper
    )
    visible = ROWS * (TOKENS * PREFIX + TOKENS * (TOKENS + 1) / 2)
    assert half.once == 2 * ROWS * TOKENS * sizes + 4 * WIDE * visible
    assert half.attention == whole.attention / 2
    assert half.linear < whole.linear / 2
    assert half.logits == whole.logits


def test_prefill_is_a_forward_pass(tiny: LanguageModel) -> None:
    tiny.network.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        tiny.network.model(torch.ones(1, TURN, dtype=torch.long))
    told = {str(kind): count for kind, count in counter.get_flop_counts()["Global"].items()}
    attention = 2 * 4 * WIDE * TURN * (TURN + 1) / 2
    assert prefill_work(tiny.network, TURN) - attention == told["aten.mm"] + told["aten.addmm"]


def test_a_pass_reads_all_weights_but_the_embedding(tiny: LanguageModel) -> None:
    everything = sum(p.numel() * p.element_size() for p in tiny.network.parameters())
    table = tiny.network.get_input_embeddings().weight
    assert weight_bytes(tiny.network) == everything - table.numel() * table.element_size()
    tiny.network.get_output_embeddings().weight = table
    shared = sum(p.numel() * p.element_size() for p in tiny.network.parameters())
    assert weight_bytes(tiny.network) == shared
