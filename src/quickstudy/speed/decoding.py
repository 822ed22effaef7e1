"""Row `decode`: our decoding against the framework's `generate`, from the same prefix cache.

`generate` is made to give as many tokens as our answer has. Tokens that the grammar forces count
as tokens of the answer, for they have to be written; a pass is one forward pass of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quickstudy.decoding import Ask, Deadline, Generation
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
    read = weight_bytes(model.network)

    def ours(repeat: int, constrained: bool) -> Mapping[str, Any]:
        at = repeat % len(contexts)
        grammar = grammars[at] if constrained else None
        generation = decoder.decode(
            contexts[at].prefix,
            [Ask(contexts[at].turn, grammar)],
            max_new_tokens=settings.max_new_tokens,
            deadline=Deadline(),
        )[0]
        if constrained:
            lengths[at] = len(generation.ids)
        return {
            "tokens": len(generation.ids),
            "passes": passes(generation),
            "bytes_a_pass": read,
        }

    def framework(repeat: int) -> Mapping[str, Any]:
        at = repeat % len(contexts)
        context, length = contexts[at], lengths[at]
        ids = naive.generate(
            naive.network,
            [*context.prefix.ids, *context.turn],
            most=length,
            least=length,
            cache=context.prefix.fork(),
        )
        return {"tokens": len(ids), "passes": len(ids), "bytes_a_pass": read}

    setting.recorder.paired(
        "decode",
        {"prefix": scenario.name},
        {
            "ours": lambda repeat: ours(repeat, True),
            "ours-unconstrained": lambda repeat: ours(repeat, False),
            "generate": framework,
        },
    )


def passes(generation: Generation) -> int:
    """Forward passes that made an answer: one before each choice."""
    return max(1, len(generation.choices))
