"""Runs a network in two parts: the lower layers once, the upper ones as often as practice asks.

With adapters on the upper layers only, what the lower ones make of the practice texts is the same
at every gradient step. What the layers are handed besides (positions, masks) is taken down while
the network itself runs, so that no architecture's way of making it is written again here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.model import LanguageModel, Start

# settings of networks that do more to the logits than multiply by the output matrix
_LOGITS_CHANGED = ("final_logit_softcapping", "logits_scaling", "logit_scale")
_taking: ContextVar[bool] = ContextVar("taking", default=False)


@dataclass(frozen=True)
class Halfway:
    """A batch as the lower layers leave it.

    `hidden` is (rows, T, width); `handed` what each upper layer gets besides; `start` where the
    rows began.
    """

    hidden: Tensor
    handed: Sequence[dict[str, Any]]
    start: Start
    first: int


def divisible(model: LanguageModel) -> bool:
    """Whether the network is of the usual build: layers, a norm, a plain output matrix."""
    network = model.network
    decoder = network.get_decoder()
    config = network.config.get_text_config()
    return (
        not any(getattr(config, name, None) for name in _LOGITS_CHANGED)
        and isinstance(getattr(decoder, "layers", None), nn.ModuleList)
        and isinstance(getattr(decoder, "norm", None), nn.Module)
        and isinstance(network.get_output_embeddings(), nn.Linear)
        and network.get_output_embeddings().bias is None
    )


@torch.no_grad()
def lower(
    model: LanguageModel, start: Start, feeds: Sequence[Sequence[int]], first: int
) -> Halfway:
    """Runs the layers below `first` over a ragged batch (see `LanguageModel.forward`)."""
    with _taking_down(model.network.get_decoder().layers[first:]) as handed:
        model.forward(feeds, start.fork(), start.seen, keep=1)
    return Halfway(handed[0].pop("hidden"), [_without_hidden(h) for h in handed], start, first)


def upper(model: LanguageModel, halfway: Halfway, rows: Sequence[int]) -> Tensor:
    """Runs the layers from `first` on for some rows: (rows, T, width), as the head reads it."""
    decoder = model.network.get_decoder()
    every = len(halfway.hidden)
    chosen = None if list(rows) == list(range(every)) else torch.tensor(rows)
    hidden = _select(halfway.hidden, chosen, every)
    cache = halfway.start.select(rows).fork()
    for layer, handed in zip(decoder.layers[halfway.first :], halfway.handed, strict=True):
        more = {name: _select(value, chosen, every) for name, value in handed.items()}
        output = layer(hidden, **more, past_key_values=cache)
        hidden = output[0] if isinstance(output, tuple) else output
    normed: Tensor = decoder.norm(hidden)
    return normed


@contextmanager
def _taking_down(layers: Sequence[nn.Module]) -> Iterator[list[dict[str, Any]]]:
    """Inside, the layers hand on what they get in this thread, and it is taken down."""
    handed: list[dict[str, Any]] = []

    def handing_on(forward: Callable[..., Any]) -> Callable[..., Any]:
        def take_down(hidden: Tensor, **more: Any) -> Any:
            if not _taking.get():
                return forward(hidden, **more)
            handed.append({"hidden": hidden, **more})
            return hidden

        return take_down

    token = _taking.set(True)
    try:
        for layer in layers:
            layer.forward = handing_on(layer.forward)
        yield handed
    finally:
        _taking.reset(token)
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _without_hidden(handed: dict[str, Any]) -> dict[str, Any]:
    dropped = ("hidden", "past_key_values")
    return {name: value for name, value in handed.items() if name not in dropped}


def _select(value: Any, rows: Tensor | None, every: int) -> Any:
    """The given rows of every tensor that has one for each."""
    if rows is None:
        return value
    if isinstance(value, tuple):
        return tuple(_select(part, rows, every) for part in value)
    if isinstance(value, Tensor) and value.dim() > 1 and len(value) == every:
        return value.index_select(0, rows.to(value.device))
    return value
