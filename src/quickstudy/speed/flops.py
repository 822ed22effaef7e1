"""Floating-point operations that a step of practice needs; a multiply-add counts two.

*Needs*, not does: real tokens without padding, attention over the keys that a token may see,
logits where an answer token is told, no gradient for weights that stay as they are. Layers below
the lowest adapted one are the same in every step, so they are needed once, and nothing runs
backwards through them. Normalisation, activation and the optimizer are left out (under 1 %).

For T tokens after a cached prefix of P, and a layer of `in` inputs and `out` outputs:

    linear, forward                2 T in out
    linear, back to its inputs     2 T in out       not where nothing adapted lies before it
    adapter, forward               2 T r (in + out)
    adapter, back                  2 T r (in + out) for A and B, 2 T r out to the low rank,
                                   2 T r in to the inputs, not where nothing adapted lies before
    attention, forward             4 d V            V = T P + T (T + 1) / 2, d = heads x head size
    attention, back                4 d V for queries and scores, 4 d T (T + 1) / 2 for own keys
                                   and values
    logits, forward and back       4 n hidden vocabulary, n answer tokens
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from quickstudy.learning.lora import layer_index, target_layers
from quickstudy.learning.practice import Lesson

_FROM_INPUT = ("q_proj", "k_proj", "v_proj", "qkv_proj")  # fed by what comes into the layer


@dataclass(frozen=True)
class Work:
    """`once`: the layers below the adapters; the rest is needed in every step."""

    once: float
    linear: float
    adapters: float
    attention: float
    logits: float

    @property
    def step(self) -> float:
        return self.linear + self.adapters + self.attention + self.logits


def practice_work(
    network: Any, adapted: Collection[str], rank: int, prefix: int, lessons: Sequence[Lesson]
) -> Work:
    """What practice on these lessons needs.

    Args:
        adapted: names of the adapted linear layers.
        prefix: tokens before each lesson whose keys and values are cached; 0 where the lesson's
            turn holds all.
    """
    lengths = [len(lesson.turn) + len(lesson.answer) for lesson in lessons]
    tokens = sum(lengths)
    own = sum(t * (t + 1) / 2 for t in lengths)
    visible = tokens * prefix + own
    lowest = min(layer_index(name) for name in adapted)
    config = network.config.get_text_config()
    wide = _width(config)
    once = lowest * 4 * wide * visible
    linear = adapters = 0.0
    for name, layer in target_layers(network, "all-linear"):
        product = 2 * tokens * layer.in_features * layer.out_features
        at = layer_index(name)
        assert at >= 0, f"{name} lies in no layer"
        if at < lowest:
            once += product
            continue
        first = at == lowest and name.rsplit(".", 1)[-1] in _FROM_INPUT
        linear += product if first else 2 * product
        if name in adapted:
            low = 2 * tokens * rank
            both = layer.in_features + layer.out_features
            adapters += low * (2 * both + layer.out_features)
            adapters += 0 if first else low * layer.in_features
    attention = (config.num_hidden_layers - lowest) * wide * (8 * visible + 4 * own)
    hidden, vocabulary = config.hidden_size, network.get_output_embeddings().weight.shape[0]
    logits = 4.0 * sum(len(lesson.answer) for lesson in lessons) * hidden * vocabulary
    return Work(once, linear, adapters, attention, logits)


def prefill_work(network: Any, tokens: int) -> float:
    """What one forward pass over a prefix needs; no logits."""
    products = sum(
        layer.in_features * layer.out_features for _, layer in target_layers(network, "all-linear")
    )
    config = network.config.get_text_config()
    visible = tokens * (tokens + 1) / 2
    attention = config.num_hidden_layers * 4 * _width(config) * visible
    return float(2 * tokens * products + attention)


def weight_bytes(network: Any) -> int:
    """Bytes of weights that one pass reads: every layer's, and the output head's.

    Not the input embedding, of which a pass reads a few rows.
    """
    table = network.get_input_embeddings().weight
    head = network.get_output_embeddings().weight
    all_bytes = sum(p.numel() * p.element_size() for p in network.parameters())
    unread = 0 if head is table else table.numel() * table.element_size()
    return int(all_bytes - unread)


def _width(config: Any) -> int:
    """Heads times head size."""
    heads = config.num_attention_heads
    return int((getattr(config, "head_dim", None) or config.hidden_size // heads) * heads)
