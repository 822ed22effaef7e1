"""Outputs and gradients are those of torch's fused kernel; it decides when it is not its turn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from quickstudy import attention
from quickstudy.model import LanguageModel

ROWS, WIDTH = 3, 8
MASKS = ("none", "none after a cache", "bool", "added", "padded")


def made(heads: int, key_heads: int, length: int, past: int) -> list[Tensor]:
    """Query, key, value."""
    generator = torch.Generator().manual_seed(length + past + heads)
    shapes = [(heads, length), (key_heads, past + length), (key_heads, past + length)]
    return [torch.randn(ROWS, h, n, WIDTH, generator=generator) for h, n in shapes]


def masked(kind: str, length: int, past: int) -> Tensor | None:
    allowed = torch.ones(length, past + length, dtype=torch.bool).tril_(past)
    every = allowed.expand(ROWS, 1, -1, -1).clone()
    if kind.startswith("none"):
        return None
    if kind == "padded":  # the second row begins late: some of its queries see nothing at all
        every[1, :, :, : past + 2] = False
    else:  # a window
        every &= ~torch.ones_like(allowed).tril_(past - 4)
    if kind == "added":
        return torch.zeros(every.shape).masked_fill_(~every, torch.finfo(torch.float32).min)
    return every


def by_torch(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Any:
    if mask is None:
        length, past = query.shape[2], key.shape[2] - query.shape[2]
        mask = torch.ones(length, past + length, dtype=torch.bool).tril_(past)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=True
    )


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("kind", MASKS)
def test_outputs_and_gradients_are_torchs(
    kind: str, heads: tuple[int, int], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "KEPT", 1 << 22 if kept else 0)
    length, past = 7, 0 if kind == "none" else 9
    parts, mask, scale = made(*heads, length, past), masked(kind, length, past), 0.3
    real = torch.ones(ROWS, length, dtype=torch.bool)
    if kind == "padded":
        real[1, :2] = False
    results = []
    for attend in (by_torch, attention._Grouped.apply):
        leaves = [part.clone().requires_grad_() for part in parts]
        output = attend(*leaves, mask, scale)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
        output = output.where(real[:, None, :, None], 0)
        (output * weights).sum().backward()
        results.append((output, [leaf.grad for leaf in leaves]))
    (theirs, their_grads), (ours, our_grads) = results
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    query, key, value = our_grads
    torch.testing.assert_close(query, their_grads[0], rtol=0, atol=1e-5)
    for our, their in ((key, their_grads[1]), (value, their_grads[2])):
        torch.testing.assert_close(our[:, :, past:], their[:, :, past:], rtol=0, atol=1e-5)
        assert not our[:, :, :past].any(), "what is cached is not trained"
        assert float(our[:, :, past:].abs().max()) > 0.01


@pytest.mark.parametrize("kept", [True, False])
def test_gradients_in_numbers(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, against differences: nothing but the formula."""
    monkeypatch.setattr(attention, "KEPT", 1 << 22 if kept else 0)
    leaves = [part[:1, ..., :3].double().requires_grad_() for part in made(4, 2, 3, 0)]
    torch.autograd.gradcheck(lambda *qkv: attention._Grouped.apply(*qkv, None, 0.4), leaves)


class TestWhoAttends:
    """Reading, long texts, dropout and what else is unusual stay with torch's kernel."""

    @pytest.fixture
    def grouped(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        real, lengths = attention._Grouped.apply, list[int]()

        def watch(query: Tensor, *more: Any) -> Any:
            lengths.append(query.shape[2])
            return real(query, *more)

        monkeypatch.setattr(attention._Grouped, "apply", watch)
        return lengths

    def attend(self, length: int, **more: Any) -> Tensor:
        query, key, value = made(4, 2, length, 0)
        module: Any = SimpleNamespace(num_key_value_groups=2, is_causal=True, training=False)
        output, _ = attention._attend(module, query.requires_grad_(), key, value, None, **more)
        assert output.shape == (ROWS, length, 4, WIDTH)
        return output

    def test_training(self, grouped: list[int]) -> None:
        ours = self.attend(6)
        assert grouped == [6]
        with torch.no_grad():
            torchs = self.attend(6)
        assert grouped == [6], "reading is torch's"
        torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("scaling", [None, 0.3])
    @pytest.mark.parametrize("kind", [kind for kind in MASKS if "none" not in kind])
    def test_reading_under_a_mask_copies_no_keys(
        self, kind: str, scaling: float | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The numbers are those of transformers, which copies them."""
        query, key, value = made(6, 2, 7, 9)
        mask = masked(kind, 7, 9)
        module: Any = SimpleNamespace(num_key_value_groups=3, is_causal=True, training=False)
        theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)
        monkeypatch.delattr(attention, "sdpa_attention_forward")
        ours, _ = attention._attend(module, query, key, value, mask, scaling)
        assert torch.equal(ours, theirs)
        assert ours.is_contiguous()

    def test_scaling(self, grouped: list[int]) -> None:
        ours = self.attend(6, scaling=0.9)
        with torch.no_grad():
            torch.testing.assert_close(ours, self.attend(6, scaling=0.9), rtol=0, atol=1e-5)
        assert grouped == [6]

    def test_what_is_unusual(self, grouped: list[int]) -> None:
        self.attend(6, dropout=0.5)
        self.attend(attention.LONGEST + 1)
        assert grouped == []
        self.attend(attention.LONGEST)
        assert grouped == [attention.LONGEST]

    def test_the_network_trains_with_it(self, tiny: LanguageModel, grouped: list[int]) -> None:
        assert tiny.network.config._attn_implementation == attention.NAME
        tiny.network.requires_grad_(True)
        tiny.network(torch.tensor([[1, 2, 3]]), use_cache=False).logits.sum().backward()
        assert grouped == [3, 3]

    def test_another_attention_is_left(self, tiny: LanguageModel) -> None:
        tiny.network.set_attn_implementation("eager")
        assert (
            LanguageModel(tiny.network, tiny.tokenizer, "x").network.config._attn_implementation
            == "eager"
        )
