"""A bank of throw-away LoRA adapters: y = W x + (alpha / r) B A x, W untouched (arXiv 2106.09685).

The adapters live beside the network: forward hooks add their part while `attached()`, and leaving
that block removes them, so the base network is bit for bit what it was. A bank holds several
independent adapters, which may be trained in one pass: each row of a batch goes through its own.
PEFT is the reference (`tests/learning/test_lora.py`), and `save`/`load` speak its file format.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quickstudy import files
from quickstudy.model import adapted, remaining

Targets = Literal["all-linear", "attention"]
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_PEFT_PREFIX = "base_model.model."
# Adapters are rows of one matrix, so that a step is one operation; torch says itself that adding
# to such rows is no error, and this once a process.
warnings.filterwarnings("ignore", "grad and param do not obey", UserWarning)
# Another thread may compute with the network between two steps of this one's practice.
_attached: ContextVar[AdapterBank | None] = ContextVar("attached", default=None)


class AdapterBank:
    """A and B of `len(generators)` adapters for every target layer.

    The master copy is float32 whatever the network computes in, because a step of 3e-4 is lost
    when added to a bfloat16 weight of 0.02. `a` and `b` are a working copy in the network's dtype,
    which `sync` refreshes. A is drawn as PEFT draws it, U(-1/sqrt(in), 1/sqrt(in)), from
    the adapter's own generator; B is zero, so a new adapter changes nothing.

    Args:
        upper: the share of the network's layers, from the top, that gets adapters.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        rank: int,
        alpha: float,
        targets: Targets,
        generators: Sequence[torch.Generator],
        upper: float = 1.0,
    ) -> None:
        self.rank, self.alpha, self.targets = rank, alpha, targets
        self.layers = dict(target_layers(network, targets, upper))
        self.rows: Tensor | None = None  # None: the first adapter for all
        self.count, weight = len(generators), next(iter(self.layers.values())).weight
        shapes = {
            (name, part): (rank, layer.in_features) if part == "A" else (layer.out_features, rank)
            for name, layer in self.layers.items()
            for part in ("A", "B")
        }
        total = self.count * sum(map(math.prod, shapes.values()))
        self._master = torch.zeros(total, device=weight.device)
        same = weight.dtype == torch.float32
        self._working = self._master if same else torch.zeros_like(self._master, dtype=weight.dtype)
        self._gradient = torch.zeros_like(self._working)
        # (name, part) -> (adapters, ...), views of the three
        self.master = dict(self._views(self._master, shapes))
        self._collected = dict(self._views(self._gradient, shapes))
        leaves = dict(self._views(self._working, shapes))
        for key, leaf in leaves.items():
            leaf.requires_grad_().grad = self._collected[key]
        self.a = {name: leaves[name, "A"] for name in self.layers}  # name -> (adapters, r, in)
        self.b = {name: leaves[name, "B"] for name in self.layers}  # name -> (adapters, out, r)
        for name, layer in self.layers.items():
            bound = 1 / math.sqrt(layer.in_features)
            for values, generator in zip(self.master[name, "A"], generators, strict=True):
                values.copy_(torch.empty(values.shape).uniform_(-bound, bound, generator=generator))
        self.sync()

    def _views(
        self, flat: Tensor, shapes: Mapping[tuple[str, str], tuple[int, int]]
    ) -> Iterator[tuple[tuple[str, str], Tensor]]:
        start = 0
        for key, shape in shapes.items():
            end = start + self.count * math.prod(shape)
            yield key, flat[start:end].view(self.count, *shape).detach()
            start = end

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    def parameters(self, adapter: int = 0) -> list[Tensor]:
        """The master copy of one adapter as float32 leaves, for an optimizer."""
        return [part[adapter].detach().requires_grad_() for part in self.master.values()]

    def gradients(self, adapter: int = 0) -> list[Tensor]:
        """What the last backward passes collected for each of its `parameters`, in float32."""
        return [part[adapter].float() for part in self._collected.values()]

    def zero_gradient(self) -> None:
        self._gradient.zero_()

    def sync(self) -> None:
        """Brings the master copy's values to what the network computes with."""
        if self._working is not self._master:
            self._working.copy_(self._master)

    def copy(self, adapter: int, other: AdapterBank, its: int) -> None:
        """Gives an adapter the values of one of another bank for the same layers."""
        for key, values in self.master.items():
            values[adapter].copy_(other.master[key][its])
        self.sync()

    def assign(self, adapters: Sequence[int]) -> None:
        """Says which adapter each row of the next batches goes through."""
        alone = self.count == 1
        self.rows = None if alone else torch.tensor(adapters, device=self._master.device)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, the network computes with the adapters in this thread.

        Always detached on leaving. `assign` says which adapter each row of a batch goes through.
        """
        handles = []
        token, told = _attached.set(self), adapted.set(True)
        try:
            for name, layer in self.layers.items():
                handles.append(layer.register_forward_hook(self._hook(name)))
            yield
        finally:
            _attached.reset(token)
            adapted.reset(told)
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        a, b = self.a[name], self.b[name]

        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if _attached.get() is not self:
                return None
            rows, left = self.rows, remaining.get()
            if rows is not None and left is not None:
                rows = rows[left]
            added: Tensor = _AddLowRank.apply(  # type: ignore[no-untyped-call]
                output, inputs[0], a, b, self.scaling, rows
            )
            return added

        return add

    def save(self, folder: Path, adapter: int = 0) -> None:
        """Writes `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{_PEFT_PREFIX}{name}.lora_{part}.weight": values[adapter].cpu().clone()
            for (name, part), values in self.master.items()
        }
        save_file(tensors, folder / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": sorted({name.rsplit(".", 1)[-1] for name in self.layers}),
            "layers_to_transform": sorted({layer_index(name) for name in self.layers}),
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
        }
        files.write(folder / "adapter_config.json", json.dumps(config, indent=2))

    @classmethod
    def load(cls, network: nn.Module, folder: Path) -> AdapterBank:
        """Reads an adapter that `save` or PEFT wrote for this network: a bank of one.

        Raises:
            ValueError: if its layers are not those of one of our targets.
        """
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
        for variant in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern"):
            if config.get(variant):
                raise ValueError(f"{folder}: {variant} computes otherwise than plain LoRA")
        tensors = load_file(folder / "adapter_model.safetensors")
        stored = {
            key.removeprefix(_PEFT_PREFIX).removesuffix(".lora_A.weight")
            for key in tensors
            if key.endswith(".lora_A.weight")
        }
        choices: tuple[Targets, ...] = ("all-linear", "attention")
        count = layer_count(network)
        shares = [(count - first) / count for first in range(count)] or [1.0]
        for targets, upper in ((t, u) for t in choices for u in shares):
            if stored == {name for name, _ in target_layers(network, targets, upper)}:
                break
        else:
            raise ValueError(f"{folder}: its layers are not those of this network")
        bank = cls(
            network,
            rank=config["r"],
            alpha=config["lora_alpha"],
            targets=targets,
            generators=[torch.Generator()],
            upper=upper,
        )
        for (name, part), values in bank.master.items():
            values[0].copy_(tensors[f"{_PEFT_PREFIX}{name}.lora_{part}.weight"])
        bank.sync()
        return bank


class _AddLowRank(torch.autograd.Function):
    """output += scaling * B A x, in place; the row's own A and B where `rows` tells them.

    Written out because autograd's own graph of it keeps five intermediate results a layer.
    """

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,  # (rows, T, out)
        x: Tensor,  # (rows, T, in)
        a: Tensor,  # (adapters, r, in)
        b: Tensor,  # (adapters, out, r)
        scaling: float,
        rows: Tensor | None,  # (rows,)
    ) -> Tensor:
        if rows is None:
            x, a, b = x.reshape(-1, x.shape[-1]), a[0], b[0]
            low = x @ a.mT
            output.view(-1, output.shape[-1]).addmm_(low, b.mT, alpha=scaling)
        else:
            ctx.adapters = len(a)
            a, b = a.index_select(0, rows), b.index_select(0, rows)
            low = x @ a.mT
            output.baddbmm_(low, b.mT, alpha=scaling)
        ctx.mark_dirty(output)
        ctx.save_for_backward(x, low, a, b)
        ctx.scaling, ctx.rows = scaling, rows
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, low, a, b = ctx.saved_tensors
        shape = grad.shape[:-1]
        if ctx.rows is None:
            grad = grad.reshape(-1, grad.shape[-1])
        of_low = (grad @ b) * ctx.scaling
        of_x = (of_low @ a).view(*shape, a.shape[-1]) if ctx.needs_input_grad[1] else None
        of_a, of_b = of_low.mT @ x, grad.mT @ low * ctx.scaling
        if ctx.rows is None:
            of_a, of_b = of_a.unsqueeze(0), of_b.unsqueeze(0)
        else:
            count = ctx.adapters
            of_a = of_a.new_zeros(count, *of_a.shape[1:]).index_add_(0, ctx.rows, of_a)
            of_b = of_b.new_zeros(count, *of_b.shape[1:]).index_add_(0, ctx.rows, of_b)
        return grads[0], of_x, of_a, of_b, None, None


def layer_count(network: nn.Module) -> int:
    """How many layers stand upon each other; 0: they are not named as layers."""
    return 1 + max(layer_index(name) for name, _ in network.named_modules())


def layer_index(name: str) -> int:
    """Which of them a module belongs to, from 0; -1: none."""
    found = re.search(r"\blayers\.(\d+)\b", name)
    return int(found[1]) if found else -1


def first_layer(network: nn.Module, upper: float) -> int:
    """The lowest layer that gets adapters where the upper share of the layers does."""
    count = layer_count(network)
    return count - max(1, round(upper * count))


def target_layers(
    network: nn.Module, targets: Targets, upper: float = 1.0
) -> Iterator[tuple[str, nn.Linear]]:
    """Yields (name, layer): every linear layer but the output head, or attention's only.

    Of the network's upper layers if `upper` is below 1.
    """
    head = network.get_output_embeddings()  # type: ignore[operator]
    first = first_layer(network, upper) if upper < 1 else -1
    for name, module in network.named_modules():
        if not isinstance(module, nn.Linear) or module is head or layer_index(name) < first:
            continue
        if targets == "all-linear" or name.rsplit(".", 1)[-1] in _ATTENTION:
            yield name, module
