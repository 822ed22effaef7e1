"""The loss of given tokens without a matrix of probabilities to keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PRODUCT_ROWS = 256  # tokens a product with the output matrix: it is read from memory for each
FLOAT_ROWS = 16  # of them at once in float32: 10 MB for a vocabulary of 150,000 stays cached


class _TokenLosses(torch.autograd.Function):
    """-log softmax(h W^T)[target] a row. The gradient is made on the way, chunk by chunk.

    Autograd would keep logits, their float32 copy and their softmax of every token until the
    backward pass, and touching that much fresh memory costs more than the products do.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for rows in torch.split(torch.arange(len(hidden), device=hidden.device), PRODUCT_ROWS):
            logits = hidden[rows] @ weight.mT
            for few in torch.split(torch.arange(len(rows), device=rows.device), FLOAT_ROWS):
                target = targets[rows[few]].unsqueeze(-1)
                chunk = logits[few].float()
                told = chunk.gather(-1, target)
                norm = chunk.logsumexp(-1, keepdim=True)
                losses[rows[few]] = (norm - told).squeeze(-1)
                probabilities = chunk.sub_(norm).exp_()
                logits[few] = probabilities.scatter_add_(-1, target, torch.full_like(told, -1)).to(
                    logits.dtype
                )
            gradient[rows] = logits @ weight
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grads[0].unsqueeze(-1).to(gradient.dtype) * gradient, None, None


def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target in nats: (tokens,), float32.

    Args:
        hidden: what the output layer reads, (tokens, width).
        weight: the output layer's, frozen: (vocabulary, width).
        targets: (tokens,).
    """
    losses: Tensor = _TokenLosses.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return losses
