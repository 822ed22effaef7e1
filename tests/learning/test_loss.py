"""Against torch's cross-entropy: values and gradients, however the rows fall into chunks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quickstudy import narrow
from quickstudy.learning import loss
from quickstudy.learning.loss import token_losses

WIDTH, VOCABULARY = 12, 50


def made(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, WIDTH, generator=generator).to(dtype)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator).to(dtype)
    return hidden, weight, torch.randint(0, VOCABULARY, (tokens,), generator=generator)


def head_of(weight: Tensor) -> nn.Linear:
    head = nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=weight.dtype)
    head.weight = nn.Parameter(weight, requires_grad=False)
    return head


@pytest.mark.parametrize("sizes", [(256, 16), (7, 3), (4, 4), (1, 1)])
@pytest.mark.parametrize("tokens", [1, 4, 23])
def test_is_cross_entropy(
    tokens: int, sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "PRODUCT_ROWS", sizes[0])
    monkeypatch.setattr(loss, "FLOAT_ROWS", sizes[1])
    hidden, weight, targets = made(tokens)
    shares = torch.rand(tokens, generator=torch.Generator().manual_seed(1))
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    losses = token_losses(ours, head_of(weight), targets)
    expected = torch.nn.functional.cross_entropy(theirs @ weight.mT, targets, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)
    (losses * shares).sum().backward()
    (expected * shares).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-5)
    assert float(ours.grad.abs().max()) > 0.01


def test_the_sizes_in_use_take_several_chunks() -> None:
    hidden, weight, targets = made(loss.PRODUCT_ROWS + loss.FLOAT_ROWS + 3)
    losses = token_losses(hidden, head_of(weight), targets)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.mT, targets, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-5)


def test_huge_logits_stay_finite() -> None:
    hidden, weight, targets = made(5)
    ours = (hidden * 1e4).requires_grad_()
    losses = token_losses(ours, head_of(weight), targets)
    losses.sum().backward()
    assert bool(losses.isfinite().all())
    assert ours.grad is not None
    assert bool(ours.grad.isfinite().all())


def test_bfloat16_is_told_in_float32() -> None:
    hidden, weight, targets = made(9, torch.bfloat16)
    ours = hidden.clone().requires_grad_()
    losses = token_losses(ours, head_of(weight), targets)
    assert losses.dtype == torch.float32
    losses.sum().backward()
    exact = hidden.float().requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        exact @ weight.float().mT, targets, reduction="none"
    )
    expected.sum().backward()
    assert ours.grad is not None
    assert exact.grad is not None
    # the logits, of up to about 10, are rounded to bfloat16: 2^-8 of them, and of the gradient
    torch.testing.assert_close(losses, expected, rtol=0, atol=0.06)
    torch.testing.assert_close(ours.grad.float(), exact.grad, rtol=0.03, atol=0.06)


@pytest.mark.parametrize("tokens", [3, 40])
def test_a_copy_of_the_head_is_near(tokens: int) -> None:
    """The logits may come of an ordered or int8 copy; the gradient is made with the weights."""
    hidden, weight, targets = made(tokens, torch.bfloat16)
    head = head_of(weight)
    plain, ours = (hidden.clone().requires_grad_() for _ in range(2))
    expected = token_losses(plain, head, targets)
    narrow.install(head, ordered=True)
    losses = token_losses(ours, head, targets)
    torch.testing.assert_close(losses, expected, rtol=0, atol=0.15)
    for told in (losses, expected):
        told.sum().backward()
    assert plain.grad is not None
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0.05, atol=0.15)
