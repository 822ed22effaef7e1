"""A throw-away LoRA adapter: y = W x + (alpha / r) B A x, W untouched (arXiv 2106.09685).

The adapter lives beside the network: forward hooks add its part while `attached()`, and leaving
that block removes them, so the base network is bit for bit what it was. PEFT is the reference
(`tests/learning/test_lora.py`), and `save`/`load` speak its file format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import linear

Targets = Literal["all-linear", "attention"]
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_PEFT_PREFIX = "base_model.model."


class Adapter:
    """A and B for every target layer, in float32 whatever the network computes in.

    Float32 because a step of 1e-4 is lost when added to a bfloat16 weight of 0.02. A is drawn as
    PEFT draws it, U(-1/sqrt(in), 1/sqrt(in)), from `generator`; B is zero, so a new adapter
    changes nothing.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        rank: int,
        alpha: float,
        targets: Targets,
        generator: torch.Generator,
    ) -> None:
        self.rank, self.alpha, self.targets = rank, alpha, targets
        self.layers = dict(target_layers(network, targets))
        self.a: dict[str, Tensor] = {}  # name -> (r, in)
        self.b: dict[str, Tensor] = {}  # name -> (out, r)
        for name, layer in self.layers.items():
            device, bound = layer.weight.device, 1 / math.sqrt(layer.in_features)
            drawn = torch.empty(rank, layer.in_features).uniform_(
                -bound, bound, generator=generator
            )
            self.a[name] = drawn.to(device).requires_grad_()
            self.b[name] = torch.zeros(layer.out_features, rank, device=device).requires_grad_()

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    def parameters(self) -> list[Tensor]:
        return [*self.a.values(), *self.b.values()]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, the network computes with the adapter; always detached on leaving."""
        handles = []
        try:
            for name, layer in self.layers.items():
                handles.append(layer.register_forward_hook(self._hook(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0]
            low = linear(x, self.a[name].to(x.dtype))
            return output + linear(low, self.b[name].to(x.dtype)) * self.scaling

        return add

    def save(self, folder: Path) -> None:
        """Writes `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name in self.layers:
            tensors[f"{_PEFT_PREFIX}{name}.lora_A.weight"] = self.a[name].detach().cpu()
            tensors[f"{_PEFT_PREFIX}{name}.lora_B.weight"] = self.b[name].detach().cpu()
        save_file(tensors, folder / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": sorted({name.rsplit(".", 1)[-1] for name in self.layers}),
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
        }
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))

    @classmethod
    def load(cls, network: nn.Module, folder: Path) -> Adapter:
        """Reads an adapter that `save` or PEFT wrote for this network.

        Raises:
            ValueError: if its layers are not those of one of our targets.
        """
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
        for variant in ("use_rslora", "use_dora"):
            if config.get(variant):
                raise ValueError(f"{folder}: {variant} computes otherwise than plain LoRA")
        tensors = load_file(folder / "adapter_model.safetensors")
        stored = {
            key.removeprefix(_PEFT_PREFIX).removesuffix(".lora_A.weight")
            for key in tensors
            if key.endswith(".lora_A.weight")
        }
        choices: tuple[Targets, ...] = ("all-linear", "attention")
        for targets in choices:
            if stored == {name for name, _ in target_layers(network, targets)}:
                break
        else:
            raise ValueError(f"{folder}: its layers are not those of this network")
        adapter = cls(
            network,
            rank=config["r"],
            alpha=config["lora_alpha"],
            targets=targets,
            generator=torch.Generator(),
        )
        with torch.no_grad():
            for name in adapter.layers:
                adapter.a[name].copy_(tensors[f"{_PEFT_PREFIX}{name}.lora_A.weight"])
                adapter.b[name].copy_(tensors[f"{_PEFT_PREFIX}{name}.lora_B.weight"])
        return adapter


def target_layers(network: nn.Module, targets: Targets) -> Iterator[tuple[str, nn.Linear]]:
    """Yields (name, layer): every linear layer but the output head, or attention's only."""
    head = network.get_output_embeddings()  # type: ignore[operator]
    for name, module in network.named_modules():
        if not isinstance(module, nn.Linear) or module is head:
            continue
        if targets == "all-linear" or name.rsplit(".", 1)[-1] in _ATTENTION:
            yield name, module
