"""Row `decode`: our decoding against the framework's `generate`, from the same prefix cache.

`generate` is made to give as many tokens as our answer has. Tokens that the grammar forces count
as tokens of the answer, for they have to be written; a pass is one forward pass of the network,
and the bytes it reads are those of the weights it computes with, int8 or the network's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from quickstudy import narrow
from quickstudy.config import DecodingConfig
from quickstudy.decoding import Ask, Deadline, Decoder
from quickstudy.model import Context
from quickstudy.speed.flops import weight_bytes
from quickstudy.speed.naive import Naive
from quickstudy.speed.setting import Setting


def decode(setting: Setting) -> None:
    """Variants take one lever away after another, so that each can be seen apart.

    ours: grammar (forced tokens cost no pass of their own), guesses, int8 copies;
    ours-unconstrained: no grammar; ours-plain: no guesses either; generate.
    """
    model, settings = setting.model, setting.config.decoding
    naive, decoder = Naive(model, setting.config), setting.improver("plain").decoder
    scenario = setting.lengths[0]
    for request in setting.asked(scenario):
        context = model.prefill(request)
        grammar = decoder.grammar(request, settings, settings.thinking)
        ways = {
            "ours": Ask(context.turn, grammar, likely=context.turn),
            "ours-unconstrained": Ask(context.turn, likely=context.turn),
            "ours-plain": Ask(context.turn),
        }
        lengths: list[int] = []  # of our answers, the same in every round
        variants = {
            name: partial(_ours, decoder, model.network, context, ask, settings, lengths)
            for name, ask in ways.items()
        }
        setting.recorder.paired(
            "decode",
            {"prefix": scenario.name, "request": request.id},
            {**variants, "generate": partial(_framework, naive, context, lengths)},
        )


def _ours(
    decoder: Decoder,
    network: Any,
    context: Context,
    ask: Ask,
    settings: DecodingConfig,
    lengths: list[int],
    _: int,
) -> Mapping[str, Any]:
    with _widths(network) as widths:
        generation = decoder.decode(
            context.prefix, [ask], max_new_tokens=settings.max_new_tokens, deadline=Deadline()
        )[0]
    if ask.grammar:
        lengths[:] = [len(generation.ids)]
    return {"tokens": len(generation.ids), **_read(network, widths)}


def _framework(naive: Naive, context: Context, lengths: Sequence[int], _: int) -> Mapping[str, Any]:
    with _widths(naive.network) as widths:
        ids = naive.generate(
            naive.network,
            [*context.prefix.ids, *context.turn],
            most=lengths[0],
            least=lengths[0],
            cache=context.prefix.fork(),
        )
    return {"tokens": len(ids), **_read(naive.network, widths)}


@contextmanager
def _widths(network: Any) -> Iterator[list[int]]:
    """The tokens of each pass that the network makes inside."""
    widths: list[int] = []
    handle = (
        network.get_decoder()
        .layers[0]
        .register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[:-1].numel()))
    )
    try:
        yield widths
    finally:
        handle.remove()


def _read(network: Any, widths: Sequence[int]) -> dict[str, int]:
    """Passes, and the bytes of weights that they read."""
    own, copied = weight_bytes(network), narrow.copied_bytes(network)
    read = [copied if copied and width <= narrow.INT8 else own for width in widths]
    return {"passes": len(widths), "bytes": sum(read)}
