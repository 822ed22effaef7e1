"""What a result was made with: the model's file, the data's, the versions and the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from gguf import LlamaFileType

from quickstudy import catalog, gguf, hub
from quickstudy.config import Config
from quickstudy.evals.benchmarks import Benchmark
from quickstudy.evals.records import DataFacts, ModelFacts

_PACKAGES = ("quickstudy", "torch", "transformers", "llguidance", "numpy", "scikit-learn")


def model_facts(spec: str, config: Config) -> ModelFacts:
    """What the model's files say. Loads no weights; the first time it may fetch them.

    Raises:
        ModelError: if there is no such model.
    """
    source = catalog.resolve(spec, config.model.cache_dir)
    path = source.path or hub.download(source.name)
    if source.kind == "gguf":
        keys = gguf.read_header(path).keys
        licence = keys.get("general.license")
        return ModelFacts(
            name=source.name,
            quantisation=_file_type(keys.get("general.file_type")),
            sha256=_digest([path]),
            licence=str(licence) if licence else None,
            dtype=config.model.dtype,
        )
    stored = json.loads((path / "config.json").read_text(encoding="utf-8"))
    quantised = stored.get("quantization_config") or {}
    weights = stored.get("dtype") or stored.get("torch_dtype")
    return ModelFacts(
        name=source.name,
        quantisation=quantised.get("quant_method") or weights,
        sha256=_digest(sorted(path.glob("*.safetensors"))),
        licence=_card_licence(path),
        dtype=config.model.dtype,
    )


def data_facts(benchmark: Benchmark, folder: Path, offset: int = 0) -> DataFacts:
    files = [folder / file.path for file in benchmark.files]
    licences = sorted({file.licence for file in benchmark.files})
    return DataFacts(
        sha256=_digest(files), rows=benchmark.rows, offset=offset, licence=", ".join(licences)
    )


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def machine(device: torch.device) -> dict[str, str | int | None]:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": gpu or _processor(),
        "cores": os.cpu_count(),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def _digest(files: Iterable[Path]) -> str:
    """SHA-256 of a file; of several, that of their digests, a line each."""
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def _file_type(number: Any) -> str | None:
    """`MOSTLY_Q4_K_M` is told as Q4_K_M, as files are named."""
    with suppress(ValueError):
        return LlamaFileType(number).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    return None


def _card_licence(folder: Path) -> str | None:
    """What the head of a model's card says."""
    with suppress(OSError, UnicodeDecodeError):
        head = (folder / "README.md").read_text(encoding="utf-8")[:4000]
        if found := re.search(r"^license:\s*(\S+)", head, re.MULTILINE):
            return found[1]
    return None


def _processor() -> str | None:
    with suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M):
            return found[1]
    return platform.processor() or None
