"""Runs a network in two parts: the lower layers once, the upper ones as often as practice asks.

With adapters on the upper layers only, what the lower ones make of the practice texts is the same
at every gradient step. What the layers are handed besides (positions, masks) is taken down while
the network itself runs, so that no architecture's way of making it is written again here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.model import LanguageModel, Start, start

log = logging.getLogger(__name__)

_taking: ContextVar[list[dict[str, Any]] | None] = ContextVar("taking", default=None)
_ONE = threading.Lock()  # one thread at a time changes the layers


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
    """Whether the network can be run in two parts, tried out once a model.

    It has layers, a norm and a plain output matrix, and a few tokens taken through its halves come
    to the network's own logits: what an architecture does besides shows there.
    """
    network = model.network
    if not hasattr(network, "_divisible"):
        network._divisible = _tried(model)
    return bool(network._divisible)


@torch.no_grad()
def _tried(model: LanguageModel) -> bool:
    decoder, head = model.network.get_decoder(), model.network.get_output_embeddings()
    usual = (
        isinstance(getattr(decoder, "layers", None), nn.ModuleList)
        and isinstance(getattr(decoder, "norm", None), nn.Module)
        and isinstance(head, nn.Linear)
        and head.bias is None
    )
    if not usual:
        return False
    rows = [[1, 2, 3, 4, 5], [5, 4, 3]]
    begin = start([model.empty_prefix()] * len(rows))
    try:
        halfway = lower(model, begin, rows, len(decoder.layers) // 2)
        ours = head(upper(model, halfway, [1, 0])[:, -1]).float()
        theirs = model.forward([rows[1], rows[0]], begin.fork(), begin.seen, keep=1)[0][:, -1]
    except Exception as error:  # whatever an unusual layer raises
        log.info("practice takes whole passes: %s: %s", type(error).__name__, error)
        return False
    return bool((ours - theirs.float()).norm() < 0.02 * theirs.float().norm())


@torch.no_grad()
def lower(
    model: LanguageModel, begin: Start, feeds: Sequence[Sequence[int]], first: int
) -> Halfway:
    """Runs the layers below `first` over a ragged batch (see `LanguageModel.forward`)."""
    with _taking_down(model.network.get_decoder().layers[first:]) as handed:
        model.forward(feeds, begin.fork(), begin.seen, keep=1)
    return Halfway(handed[0].pop("hidden"), [_without_hidden(h) for h in handed], begin, first)


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
        def take_down(hidden: Tensor, *others: Any, **more: Any) -> Any:
            mine = _taking.get()
            if mine is None:
                return forward(hidden, *others, **more)
            if others:
                raise TypeError("the layers are handed more than hidden states by position")
            mine.append({"hidden": hidden, **more})
            return hidden

        return take_down

    with _ONE:
        token = _taking.set(handed)
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
