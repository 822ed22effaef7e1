"""Row `decode`: our decoding against the framework's `generate`, from the same prefix cache.

`generate` is made to give as many tokens as our answer has. Tokens that the grammar forces count
as tokens of the answer, for they have to be written; a pass is one forward pass of the network,
and the bytes it reads are those of the weights it computes with, int8 or the network's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from quickstudy import narrow
from quickstudy.decoding import Ask, Deadline
from quickstudy.speed.flops import weight_bytes
from quickstudy.speed.naive import Naive
from quickstudy.speed.setting import Setting


def decode(setting: Setting) -> None:
    model, settings = setting.model, setting.config.decoding
    naive, decoder = Naive(model, setting.config), setting.improver("plain").decoder
    scenario = setting.lengths[0]
    contexts = [model.prefill(request) for request in scenario.requests]
    grammars = [decoder.grammar(r, settings, settings.thinking) for r in scenario.requests]
    lengths: dict[int, int] = {}  # of our answer to each request

    def ours(repeat: int, constrained: bool) -> Mapping[str, Any]:
        at = repeat % len(contexts)
        grammar = grammars[at] if constrained else None
        with _widths(model.network) as widths:
            generation = decoder.decode(
                contexts[at].prefix,
                [Ask(contexts[at].turn, grammar, likely=contexts[at].turn)],
                max_new_tokens=settings.max_new_tokens,
                deadline=Deadline(),
            )[0]
        if constrained:
            lengths[at] = len(generation.ids)
        return {"tokens": len(generation.ids), **_read(model.network, widths)}

    def framework(repeat: int) -> Mapping[str, Any]:
        at = repeat % len(contexts)
        context, length = contexts[at], lengths[at]
        with _widths(naive.network) as widths:
            ids = naive.generate(
                naive.network,
                [*context.prefix.ids, *context.turn],
                most=length,
                least=length,
                cache=context.prefix.fork(),
            )
        return {"tokens": len(ids), **_read(naive.network, widths)}

    setting.recorder.paired(
        "decode",
        {"prefix": scenario.name},
        {
            "ours": lambda repeat: ours(repeat, True),
            "ours-unconstrained": lambda repeat: ours(repeat, False),
            "generate": framework,
        },
    )


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
