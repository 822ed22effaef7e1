"""The loss of given tokens without a matrix of probabilities to keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quickstudy import narrow

PRODUCT_ROWS = 256  # tokens a product with the output matrix: it is read from memory for each
FLOAT_ROWS = 4  # of them at once in float32: 2.4 MB for a vocabulary of 150,000 stays cached


class _TokenLosses(torch.autograd.Function):
    """-log softmax(h W^T)[target] a row. The gradient is made on the way, chunk by chunk.

    Autograd would keep logits, their float32 copy and their softmax of every token until the
    backward pass, and touching that much fresh memory costs more than the products do.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, head: nn.Module
    ) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        count = FLOAT_ROWS if hidden.device.type == "cpu" else PRODUCT_ROWS
        for begin in range(0, len(hidden), PRODUCT_ROWS):
            rows = slice(begin, begin + PRODUCT_ROWS)
            some = hidden[rows]
            # not the head's int8 copy, which a few tokens would get
            logits: Tensor = head(some) if len(some) > narrow.INT8 else some @ weight.mT
            for few in range(0, len(some), count):
                part = logits[few : few + count]
                target = targets[rows][few : few + count].unsqueeze(-1)
                chunk = part.float()
                told = chunk.gather(-1, target)
                largest = chunk.amax(-1, keepdim=True)
                total = chunk.sub_(largest).exp_().sum(-1, keepdim=True)
                each = total.log() + largest - told
                losses[rows][few : few + count] = each.squeeze(-1)
                torch.mul(chunk, 1 / total, out=part)
                part.scatter_(-1, target, torch.expm1(-each).to(part.dtype))  # p - 1
            gradient[rows] = logits @ weight
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grads[0].unsqueeze(-1).to(gradient.dtype) * gradient, None, None, None


def token_losses(hidden: Tensor, head: nn.Linear, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target in nats: (tokens,), float32.

    Args:
        hidden: what the output layer reads, (tokens, width).
        head: the output layer, frozen and without bias.
        targets: (tokens,).
    """
    losses: Tensor = _TokenLosses.apply(hidden, head.weight, targets, head)  # type: ignore[no-untyped-call]
    return losses
