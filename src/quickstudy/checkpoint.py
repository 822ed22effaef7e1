"""A folder of weights: is it whole? Loads nothing; knows safetensors, and what it is not.

Pickled weights (`*.bin`, `*.pth`) are refused: reading a pickle can run what its author wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quickstudy.errors import ModelError

WEIGHTS = "*.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
CONVERT = (
    "from transformers import AutoModelForCausalLM as M; "
    "M.from_pretrained({0!r}).save_pretrained({0!r})"
)


def check(folder: Path) -> None:
    """Refuses a folder that cannot be loaded.

    Raises:
        ModelError: says which file is missing or damaged and what to do about it.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json; name the folder that holds the weights")
    if not isinstance(_json(folder / "config.json").get("model_type"), str):
        raise ModelError(f"{folder / 'config.json'} names no model_type; download it again")
    weights = sorted(folder.glob(WEIGHTS))
    missing = missing_shards(folder)
    if not weights and not missing:
        raise ModelError(_no_weights(folder))
    if missing:
        raise ModelError(
            f"{folder} lacks {missing[0]} ({len(missing)} of the files that {_INDEX} lists are "
            "missing); download them again"
        )
    for path in weights:
        _check_whole(path)
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(f"{folder} has no tokenizer; put the model's tokenizer.json beside it")


def missing_shards(folder: Path) -> list[str]:
    """Files of weights that the folder's index lists and that are not there."""
    if not (folder / _INDEX).is_file():
        return []
    index = _json(folder / _INDEX).get("weight_map")
    if not isinstance(index, dict):
        raise ModelError(f"{folder / _INDEX} has no weight_map; download it again")
    return sorted({str(name) for name in index.values() if not (folder / str(name)).is_file()})


def check_loaded(what: str, loading: Mapping[str, Any]) -> None:
    """Refuses a network that was filled up with random numbers where weights were missing.

    Args:
        loading: what transformers returns for `output_loading_info=True`.
    """
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"the weights of {what} are not those its architecture needs: {len(missing)} are "
            f"missing, {missing[0]} among them; use the whole file of a chat model"
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON: {error}; download it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object; download it again")
    return content


def _check_whole(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise ModelError(
            f"{path} is cut off or damaged ({size:,} bytes: {error}); download it again"
        ) from error


def _no_weights(folder: Path) -> str:
    pickled = next((p for pattern in _PICKLED for p in sorted(folder.glob(pattern))), None)
    if pickled:
        return (
            f"{folder} has only pickled weights ({pickled.name}), which can hold programs; if you "
            f'trust them, convert them once: python -c "{CONVERT.format(str(folder))}"'
        )
    gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
    if gguf:
        return f"{folder} has no safetensors; name the GGUF file itself: --model {gguf}"
    return f"{folder} has no weights ({WEIGHTS}); download them or name another folder"
