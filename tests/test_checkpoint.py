"""Folders of weights that are not whole: each says what it lacks; nothing is made up."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quickstudy.config import ModelConfig
from quickstudy.errors import ModelError
from quickstudy.model import LanguageModel

CPU = ModelConfig(device="cpu", dtype="float32")


@pytest.fixture
def folder(tiny: LanguageModel, tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-model"
    tiny.network.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        LanguageModel.load(str(folder), CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def _gguf_instead(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "some.gguf")


def _another(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "quux"}))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text('{"a": }'), "config.json is no JSON: .*column 7"),
        (lambda f: (f / "config.json").write_text("[]"), "holds no JSON object"),
        (lambda f: (f / "config.json").write_text("{}"), "names no model_type"),
        (lambda f: (f / "model.safetensors").unlink(), "has no weights .*download"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "cut off or damaged .0 bytes"),
        (_cut, r"model\.safetensors is cut off or damaged \([\d,]+ bytes.*download it again"),
        (_gguf_instead, r"--model \S+some\.gguf"),
        (_tokenizer, "has no tokenizer; put the model's tokenizer.json"),
        (_another, "cannot load .*`quux`"),
    ],
)
def test_what_is_not_whole_says_so(folder: Path, harm: Callable[[Path], None], told: str) -> None:
    harm(folder)
    error = refusal(folder)
    assert re.search(told, error), error
    assert str(folder) in error


def test_a_missing_shard_is_named(folder: Path, tiny: LanguageModel) -> None:
    (folder / "model.safetensors").unlink()
    tiny.network.save_pretrained(folder, max_shard_size="100KB")
    LanguageModel.load(str(folder), CPU)
    shard = sorted(folder.glob("model-*"))[1]
    shard.unlink()
    assert f"lacks {shard.name} (1 of the files" in refusal(folder)


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    """transformers fills them with random numbers and says so in a log that nobody reads."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    error = refusal(folder)
    assert "1 are missing, model.layers.1.mlp.up_proj.weight among them" in error


def test_pickled_weights_are_converted_by_what_the_error_says(
    folder: Path, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(tiny.network.state_dict(), folder / "pytorch_model.bin")
    error = refusal(folder)
    assert "only pickled weights (pytorch_model.bin)" in error
    (code,) = re.findall(r'python -c "(.*)"', error)
    monkeypatch.setattr(sys, "argv", ["-c"])
    exec(code, {})
    loaded = LanguageModel.load(str(folder), CPU)
    for name, weight in tiny.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], weight)


def test_no_pickle_is_read_where_there_are_both(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"a program")
    LanguageModel.load(str(folder), CPU)
    shutil.rmtree(folder)
