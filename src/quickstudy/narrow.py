"""Copies of the weights for passes without gradients on a CPU: decoding and reading.

A pass over few tokens costs what reading the weights costs. Up to four it reads an int8 copy, half
the bytes in nearly half the time: one scale for each output (symmetric, from its largest weight),
the products taken in the network's own dtype, 0.8 % off in norm where bfloat16 itself is 0.4 % off.
For more tokens the cores' matrix units are faster, but they want blocks of weights in an order of
their own: torch reorders the whole matrix at every pass, which costs as much as the products of
60 tokens. So those passes take a copy that lies in that order already: 1.5 times faster for a dozen
tokens, 1.2 times for a hundred (a 0.5B model, 2 cores). The output matrix is too large for another
copy; it is taken as the left factor of the product, for it is the right one that is reordered.
Training and wider passes use the network's own weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

INT8 = 4  # tokens in a pass at most; measured: 1.8 times faster at 1, 1.35 at 4, 0.7 at 8
ORDERED = 128  # tokens in a pass at most: beyond them there is little to gain
FROM_LEFT = 24  # likewise: the result has to be transposed, which costs more the wider it is
_BLOCK = 16  # inputs; torch's int8 product reads beyond the end of rows of other lengths
_ORDERED_FOR = 64  # tokens that the order is chosen for; it is the same for 8 and for 256

Linear = Callable[[Tensor], Tensor]


def pays(network: Any) -> bool:
    """Whether the copies are worth their memory: for bfloat16 on a CPU."""
    weight = next(network.parameters())
    return bool(weight.device.type == "cpu" and weight.dtype == torch.bfloat16)


def can_order() -> bool:
    """Whether this build of torch, on this processor, multiplies with an ordered copy."""
    operations = torch.ops.mkldnn
    known = all(
        hasattr(operations, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )
    return known and bool(operations._is_mkldnn_bf16_supported())


@torch.no_grad()
def install(network: nn.Module, ordered: bool) -> None:
    """Gives every linear layer an int8 copy, and one in the matrix units' order if `ordered`."""
    ordered = ordered and can_order()
    head = getattr(network, "get_output_embeddings", lambda: None)()
    for module in network.modules():
        if isinstance(module, nn.Linear):
            few = None if module.in_features % _BLOCK else _int8(module)
            some = None
            if ordered:
                some = _from_left(module) if module is head else _ordered(module)
            most = FROM_LEFT if module is head else ORDERED
            module.forward = _narrow(module, few, some, most)  # type: ignore[method-assign, assignment]


def copied_bytes(network: nn.Module) -> int:
    """What a pass reads of the int8 copies; 0: there are none."""
    return sum(getattr(module, "int8_bytes", 0) for module in network.modules())


def _narrow(module: nn.Linear, few: Linear | None, some: Linear | None, most: int) -> Linear:
    """The layer with `few` for passes of up to INT8 tokens and `some` for those of up to `most`."""

    def forward(x: Tensor) -> Tensor:
        copy = few if x.numel() <= INT8 * x.shape[-1] else some
        wide = x.numel() > most * x.shape[-1]
        if copy is None or wide or torch.is_grad_enabled():
            return linear(x, module.weight, module.bias)
        return copy(x)

    return forward


def _int8(module: nn.Linear) -> Linear:
    scale = module.weight.abs().amax(1).float().div_(127).clamp_(min=1e-30)
    scale = scale.to(module.weight.dtype).float()
    copy = torch.empty_like(module.weight, dtype=torch.int8)
    for rows in torch.split(torch.arange(len(scale)), 1 << 13):
        whole = (module.weight[rows].float() / scale[rows, None]).round_().clamp_(-127, 127)
        copy[rows] = whole.to(torch.int8)
    scale = scale.to(module.weight.dtype)

    module.int8_bytes = copy.numel() + scale.numel() * scale.element_size()  # type: ignore[assignment]

    def few(x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        product = torch.ops.aten._weight_int8pack_mm(flat, copy, scale)
        output: Tensor = product.view(*x.shape[:-1], len(copy))
        return output if module.bias is None else output + module.bias

    return few


def _ordered(module: nn.Linear) -> Linear:
    copy = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), _ORDERED_FOR)

    def some(x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, copy, module.bias, "none", [], "")
        return product

    return some


def _from_left(module: nn.Linear) -> Linear:
    def some(x: Tensor) -> Tensor:
        product = (module.weight @ x.reshape(-1, x.shape[-1]).mT).mT.contiguous()
        output: Tensor = product.view(*x.shape[:-1], module.out_features)
        return output if module.bias is None else output + module.bias

    return some
