"""Narrow passes are within int8's rounding of the exact product, wider ones within the dtype's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_model
from families import save_folder
from torch import Tensor, nn
from torch.nn.functional import linear

from quickstudy import narrow
from quickstudy.config import ModelConfig
from quickstudy.model import LanguageModel


def layer(bias: bool, dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Linear(256, 320, bias=bias).to(dtype)
        made.weight.data[7] = 0  # a row whose largest weight gives no scale
        made.weight.data[8:40] *= 100  # and some that would spoil a scale of the whole matrix
    return made.requires_grad_(False)


def inputs(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, 256, generator=torch.Generator().manual_seed(1)).to(dtype)


def off(got: Tensor, exact: Tensor) -> float:
    """Relative, in norm."""
    return float((got.double() - exact).norm() / exact.norm())


ORDERED = pytest.mark.parametrize("ordered", [True, False])


@ORDERED
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 4), (4, 1), (2, 2)])
@torch.no_grad()
def test_narrow_passes_are_near_the_exact_product(
    bias: bool, shape: tuple[int, ...], ordered: bool
) -> None:
    made, x = layer(bias), inputs(*shape)
    told = made.bias.double() if bias else None
    exact = linear(x.double(), made.weight.double(), told)
    plain = made(x)
    narrow.install(made, ordered)
    got = made(x)
    assert got.shape == plain.shape
    assert got.dtype == plain.dtype
    assert not torch.equal(got, plain), "the copy is in use"
    for rows in (slice(None, 7), slice(8, 40), slice(40, None)):  # each has its own scale
        assert off(got[..., rows], exact[..., rows]) < 0.012
    zero = exact[..., 7]  # of weights 0 only the bias is left
    torch.testing.assert_close(got[..., 7].double(), zero, rtol=0, atol=0)


WIDE = pytest.mark.parametrize("shape", [(1, 5), (5, 1), (3, 2), (40,), (2, 700)])


@WIDE
@torch.no_grad()
def test_wide_passes_are_the_networks_own(shape: tuple[int, ...]) -> None:
    made, x = layer(True), inputs(*shape)
    plain = made(x)
    narrow.install(made, ordered=False)
    assert torch.equal(made(x), plain)


@WIDE
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_of_ordered_weights_they_are_as_near_as_the_networks_own(
    bias: bool, shape: tuple[int, ...]
) -> None:
    made, x = layer(bias), inputs(*shape)
    told = made.bias.double() if bias else None
    exact = linear(x.double(), made.weight.double(), told)
    plain, before = made(x), made.weight.clone()
    narrow.install(made, ordered=True)
    got = made(x)
    assert (got.shape, got.dtype) == (plain.shape, plain.dtype)
    assert got.is_contiguous()
    assert off(got, exact) < 1.1 * off(plain, exact) < 0.004
    assert torch.equal(made.weight, before)


@torch.no_grad()
def test_the_ordered_copy_is_what_is_read() -> None:
    made, x = layer(False), inputs(7)
    narrow.install(made, ordered=True)
    before = made(x)
    made.weight.zero_()
    assert torch.equal(made(x), before)


@torch.no_grad()
def test_where_torch_cannot_order_weights_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on every processor, nor in every build."""
    assert narrow.can_order(), "this machine shall test the copies"
    monkeypatch.setattr(narrow, "can_order", lambda: False)
    made, x = layer(False), inputs(7)
    plain = made(x)
    narrow.install(made, ordered=True)
    assert torch.equal(made(x), plain)


@pytest.mark.parametrize("width", [8, 12, 40, 100])
@torch.no_grad()
def test_rows_that_the_int8_product_cannot_read_stay_the_networks_own(width: int) -> None:
    """It would read beyond their end: wrong numbers, or the end of the process."""
    made = nn.Linear(width, 50).to(torch.bfloat16)
    x = torch.randn(2, width).to(torch.bfloat16)
    plain = made(x)
    narrow.install(made, ordered=False)
    assert torch.equal(made(x), plain)
    narrow.install(made, ordered=True)
    assert torch.equal(made(x), plain)
    wide = torch.randn(9, width).to(torch.bfloat16)
    exact = linear(wide.double(), made.weight.double(), made.bias.double())
    assert off(made(wide), exact) < 0.004


@torch.no_grad()
def test_no_tokens() -> None:
    made = layer(True)
    narrow.install(made, ordered=True)
    assert made(inputs(2, 0)).shape == (2, 0, 320)


@ORDERED
def test_training_is_the_networks_own(ordered: bool) -> None:
    made, x = layer(True), inputs(1, 2)
    with torch.no_grad():
        plain = made(x)
    narrow.install(made, ordered)
    assert torch.equal(made(x), plain)
    x.requires_grad_()
    made(x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == x.dtype


@torch.no_grad()
def test_weights_are_untouched_and_many_rows_are_copied_in_parts() -> None:
    large = nn.Linear(16, (1 << 13) + 5, bias=False).to(torch.bfloat16)
    before = large.weight.clone()
    x = torch.randn(1, 16, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    narrow.install(large, ordered=False)
    assert torch.equal(large.weight, before)
    exact = x.double() @ before.double().mT
    for rows in (slice(None, 1 << 13), slice(1 << 13, None)):
        assert off(large(x)[:, rows], exact[:, rows]) < 0.02


@torch.no_grad()
def test_a_whole_network() -> None:
    """Wide passes bit for bit, narrow ones near; the head is narrow too."""
    model = tiny_model(torch.bfloat16)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])

    def logits(count: int) -> Tensor:
        made: Tensor = model.network(ids[:, :count], use_cache=False).logits
        return made

    wide, few = logits(6), logits(3)
    narrow.install(model.network, ordered=False)
    assert torch.equal(logits(6), wide)
    assert not torch.equal(logits(3), few)
    assert off(logits(3), few.double()) < 0.03


@pytest.mark.parametrize("tokens", [5, narrow.FROM_LEFT, narrow.FROM_LEFT + 1])
@torch.no_grad()
def test_the_output_matrix_has_no_copy_in_another_order(tokens: int) -> None:
    model = tiny_model(torch.bfloat16)
    head = model.network.get_output_embeddings()
    narrow.install(model.network, ordered=True)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, tokens, head.in_features, generator=generator).to(torch.bfloat16)
    got, exact = head(x), linear(x.double(), head.weight.double())
    assert got.shape == exact.shape
    assert got.is_contiguous()
    assert off(got, exact) < 0.004
    head.weight.zero_()
    assert not head(x).any(), "its own weights are read"


class TestConfig:
    """int8 and auto on a bfloat16 CPU model install the copy; own and float32 do not."""

    def loaded(self, folder: Path, **settings: Any) -> tuple[LanguageModel, bool]:
        model = LanguageModel.load(str(folder), ModelConfig(device="cpu", **settings))
        linears = [m for m in model.network.modules() if isinstance(m, nn.Linear)]
        copied = {"forward" in vars(module) for module in linears}
        assert len(copied) == 1, "all or none"
        return model, copied.pop()

    @pytest.mark.parametrize(
        ("weights", "dtype", "copied"),
        [
            ("own", "bfloat16", False),
            ("auto", "bfloat16", True),
            ("int8", "bfloat16", True),
            ("own", "float32", False),
            ("auto", "float32", False),
        ],
    )
    def test_who_gets_a_copy(self, tmp_path: Path, weights: str, dtype: str, copied: bool) -> None:
        save_folder(tmp_path, "qwen2")
        model, has = self.loaded(tmp_path, decoding_weights=weights, dtype=dtype)
        assert has == copied
        assert model.prefixes.tokens == ModelConfig().prefix_cache

    def test_int8_of_another_dtype_works(self, tmp_path: Path) -> None:
        """Asked for by name where auto would not."""
        save_folder(tmp_path, "qwen2")
        own, _ = self.loaded(tmp_path, decoding_weights="own", dtype="float32")
        model, copied = self.loaded(tmp_path, decoding_weights="int8", dtype="float32")
        assert copied
        with torch.no_grad():
            ids = torch.tensor([[5, 6]])
            exact = own.network(ids, use_cache=False).logits
            assert off(model.network(ids, use_cache=False).logits, exact.double()) < 0.05
