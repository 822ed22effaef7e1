"""Attention for short practice texts after a long prefix, on a CPU.

Torch's fused kernel is the best there is for reading, and its backward pass the slowest part of a
training step: 12 ms for 140 tokens after 680, where the matrix products themselves take 2. In
training the few queries make a small matrix of scores, so the products are taken as they are,
with the query heads that share a key head as one matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "quickstudy"
LONGEST = 512  # queries; longer texts make scores that no longer fit near the cores
KEPT = 1 << 22  # numbers of a layer's softmax kept for the backward pass; larger ones are redone


def install(network: Any) -> None:
    """Gives a network that attends by torch's fused kernel this attention in training."""
    if network.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, _attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        network.set_attn_implementation(NAME)


def _attend(
    module: nn.Module,
    query: Tensor,  # (rows, heads, T, width)
    key: Tensor,  # (rows, key heads, S, width)
    value: Tensor,
    attention_mask: Tensor | None,  # (rows, 1, T, S): bool, or added to the scores
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    trained = torch.is_grad_enabled() and query.requires_grad and query.device.type == "cpu"
    plain = all(not more.get(name) for name in ("dropout", "softcap", "position_bias", "cache"))
    shared = query.shape[1] != key.shape[1]
    if not trained and plain and shared and attention_mask is not None and key.device.type == "cpu":
        # transformers copies the keys for each query head where there is a mask: the same, slower
        output = scaled_dot_product_attention(
            query, key, value, attention_mask, scale=scaling, enable_gqa=True
        )
        return output.transpose(1, 2).contiguous(), None
    if not trained or not plain or query.shape[2] > LONGEST:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )
        return output, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    grouped: Any = _Grouped.apply
    output = grouped(query, key, value, attention_mask, scale)
    return output.transpose(1, 2).contiguous(), None


class _Grouped(torch.autograd.Function):
    """softmax(q k^T * scale + mask) v; query heads of one key head are one matrix.

    The first S - T keys and values come out of a cache and get no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        rows, heads, length, width = query.shape
        grouped = (query * scale).reshape(rows, key.shape[1], -1, width)
        shares = _shares(grouped, key, mask, length)
        output = (shares @ value).view(rows, heads, length, -1)
        kept = shares if shares.numel() <= KEPT else None
        ctx.save_for_backward(grouped, key, value, mask, output, kept)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grouped, key, value, mask, output, shares = ctx.saved_tensors
        length = grads[0].shape[2]
        if shares is None:
            shares = _shares(grouped, key, mask, length)
        of_output = grads[0].reshape(*grouped.shape[:-1], -1)
        # softmax's own part, sum_j p_j dp_j, is the output's product with its gradient
        inner = (of_output.float() * output.view(of_output.shape).float()).sum(-1, keepdim=True)
        of_scores = (of_output @ value.mT).sub_(inner.to(value.dtype)).mul_(shares)
        of_query = (of_scores @ key).mul_(ctx.scale).view(*grads[0].shape[:-1], -1)
        of_key, of_value = torch.zeros_like(key), torch.zeros_like(value)
        of_key[:, :, -length:] = of_scores[..., -length:].mT @ grouped
        of_value[:, :, -length:] = shares[..., -length:].mT @ of_output
        return of_query, of_key, of_value, None, None


def _shares(grouped: Tensor, key: Tensor, mask: Tensor | None, length: int) -> Tensor:
    """(rows, key heads, group * T, S); `grouped` is scaled."""
    scores = grouped @ key.mT
    rows, heads, _, seen = scores.shape
    split = scores.view(rows, heads, -1, length, seen)
    if mask is None:  # all of the cache, and one's own past
        future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu_(1)
        split[..., -length:].masked_fill_(future, -torch.inf)
    elif mask.dtype == torch.bool:
        split.masked_fill_(~mask.unsqueeze(2), torch.finfo(scores.dtype).min)
    else:
        split.add_(mask.unsqueeze(2))
    return scores.softmax(-1)
