"""The network without anything of ours, for the usual way to compute with."""

from __future__ import annotations

import copy
from typing import Any

from quickstudy import attention


def bare(network: Any) -> Any:
    """The same network as it was loaded: a copy of its structure that shares every weight."""
    shared = {id(parameter): parameter for parameter in network.parameters()}
    copied = copy.deepcopy(network, shared)
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
        for name in ("forward", "int8_bytes"):
            module.__dict__.pop(name, None)
    if network.config._attn_implementation == attention.NAME:
        copied.set_attn_implementation("sdpa")
    return copied
