"""GGUF files, whole and broken; a conversion is kept whole or not at all."""

from __future__ import annotations

import re
import resource
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf as writers
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from quickstudy import gguf
from quickstudy.config import ModelConfig
from quickstudy.errors import ModelError
from quickstudy.model import LanguageModel

WIDTH, LAYERS, HEADS = 32, 2, 2
TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"


def write_gguf(
    path: Path,
    architecture: str = "qwen2",
    *,
    tokenizer: bool = True,
    template: bool = True,
    weights: bool = True,
    leave_out: str = "nothing",
    parts: int = 1,
) -> Path:
    """Writes a random model with a byte tokenizer.

    Args:
        leave_out: how the names of tensors begin that the file lacks.
    """
    writer = writers.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_uint16("split.count", parts)
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(TOKENS)
        writer.add_token_types([1] * (len(TOKENS) - 2) + [3] * 2)
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(len(TOKENS) - 1)
        if template:
            writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)
    for name, shape in shapes().items() if weights else ():
        if not name.startswith(leave_out):
            writer.add_tensor(name, random.normal(0, 0.1, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(TOKENS), WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v"):
            found[f"blk.{layer}.{name}.weight"] = (WIDTH, WIDTH)
            found[f"blk.{layer}.{name}.bias"] = (WIDTH,)
        found[f"blk.{layer}.attn_output.weight"] = (WIDTH, WIDTH)
        found[f"blk.{layer}.attn_norm.weight"] = (WIDTH,)
        found[f"blk.{layer}.ffn_norm.weight"] = (WIDTH,)
        found[f"blk.{layer}.ffn_gate.weight"] = (2 * WIDTH, WIDTH)
        found[f"blk.{layer}.ffn_up.weight"] = (2 * WIDTH, WIDTH)
        found[f"blk.{layer}.ffn_down.weight"] = (WIDTH, 2 * WIDTH)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "whole.gguf").read_bytes()


@pytest.fixture
def file(whole: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(whole)
    return path


def config(folder: Path) -> ModelConfig:
    return ModelConfig(device="cpu", dtype="float32", cache_dir=folder)


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "converted").glob("*"))


class TestHeader:
    def test_tells_the_size_the_file_has(self, file: Path) -> None:
        header = gguf.check(file)
        assert header.size == file.stat().st_size
        assert header.weights == sum(int(np.prod(shape)) for shape in shapes().values())
        assert header.keys["general.architecture"] == "qwen2"
        assert header.keys["tokenizer.ggml.tokens"] == len(TOKENS)

    @pytest.mark.model
    def test_of_a_quantised_model(self) -> None:
        from quickstudy import catalog

        path = catalog.resolve("smollm2", Path("/nowhere")).path
        assert path is not None
        assert gguf.check(path).size == path.stat().st_size

    @pytest.mark.parametrize("missing", [1, 1000, 100_000])
    def test_a_file_that_is_cut_off_tells_both_sizes(
        self, missing: int, whole: bytes, tmp_path: Path
    ) -> None:
        (tmp_path / "cut.gguf").write_bytes(whole[:-missing])
        with pytest.raises(ModelError) as caught:
            gguf.check(tmp_path / "cut.gguf")
        told = f"cut off: it has {len(whole) - missing:,} bytes of {len(whole):,}; download"
        assert told in str(caught.value)

    @settings(
        deadline=None,
        max_examples=60,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(data=st.data())
    def test_any_harm_is_a_model_error_or_none(
        self, data: st.DataObject, whole: bytes, tmp_path: Path
    ) -> None:
        path = tmp_path / "harmed.gguf"
        cut = data.draw(st.integers(0, 8000))
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError):
            gguf.check(path)
        at = data.draw(st.integers(4, 8000))
        harm = data.draw(st.binary(min_size=1, max_size=8))
        path.write_bytes(whole[:at] + harm + whole[at + len(harm) :])
        try:
            gguf.check(path)
        except ModelError as error:
            assert str(path) in str(error)

    def test_a_count_that_nothing_can_hold(self, tmp_path: Path) -> None:
        path = tmp_path / "wild.gguf"
        key = struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 2**62) + b"\0" * 64
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60) + key)
        with pytest.raises(ModelError, match="cut off or damaged"):
            gguf.check(path)

    def test_supported_is_what_transformers_reads(self) -> None:
        spelt = {
            name.replace("_moe", "moe").replace("_", "-") for name in GGUF_SUPPORTED_ARCHITECTURES
        }
        assert spelt >= gguf.ARCHITECTURES


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no GGUF file"),
        (b"PK\3\4 and so on", "no GGUF file"),
        (b"GGUF", "cut off or damaged: its header does not end in its 4 bytes"),
        ({"architecture": "mamba"}, "'mamba', which is not supported; these are: .*llama.*qwen3"),
        ({"architecture": "clip"}, "'clip', which is not supported"),
        ({"weights": False}, "a vocabulary and no weights"),
        ({"tokenizer": False}, "no tokenizer"),
        ({"parts": 3}, "one of 3 parts .*llama-gguf-split --merge"),
        ({"leave_out": "blk.1"}, "12 are missing, model.layers.1"),
        ({"template": False}, "no chat template.*-Instruct"),
    ],
)
def test_what_cannot_be_loaded_says_why(content: Any, told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_gguf(path, **content)
    with pytest.raises(ModelError) as caught:
        LanguageModel.load(str(path), config(tmp_path / "cache"))
    assert re.search(told, str(caught.value)), caught.value
    assert "bad" in str(caught.value)
    if content != {"template": False}:
        assert kept(tmp_path / "cache") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB: the weights need more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class TestConversion:
    def test_is_made_once_and_is_exact(self, file: Path, tmp_path: Path) -> None:
        first = LanguageModel.load(str(file), config(tmp_path / "cache"))
        (folder,) = kept(tmp_path / "cache")
        made = (folder / "model.safetensors").stat().st_mtime_ns
        second = LanguageModel.load(str(file), config(tmp_path / "cache"))
        assert (folder / "model.safetensors").stat().st_mtime_ns == made
        random = np.random.default_rng(0).normal(0, 0.1, shapes()["token_embd.weight"])
        for model in (first, second):
            embedded = model.network.get_input_embeddings().weight
            assert torch.equal(embedded, torch.tensor(random.astype(np.float32)))
        assert first.name == "tiny"

    def test_half_of_one_is_made_again(self, file: Path, tmp_path: Path) -> None:
        """After a power cut a file may have its name and not its content."""
        LanguageModel.load(str(file), config(tmp_path / "cache"))
        (folder,) = kept(tmp_path / "cache")
        weights = folder / "model.safetensors"
        whole = weights.read_bytes()
        for harm in (lambda: weights.write_bytes(whole[:5000]), weights.unlink):
            harm()
            LanguageModel.load(str(file), config(tmp_path / "cache"))
            assert weights.read_bytes() == whole
        assert kept(tmp_path / "cache") == [folder]

    def test_too_little_room_is_told_beforehand(self, file: Path, small_disk: Path) -> None:
        with pytest.raises(ModelError, match=r"need 0 MB and .* left; .*model\.cache_dir=FOLDER"):
            LanguageModel.load(str(file), config(small_disk))
        assert kept(small_disk) == []

    def test_a_disk_that_fills_meanwhile_leaves_nothing(self, file: Path, tmp_path: Path) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            with pytest.raises(ModelError, match=r"cannot be written to .*model\.cache_dir=FOLDER"):
                LanguageModel.load(str(file), config(tmp_path / "cache"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert kept(tmp_path / "cache") == []
        LanguageModel.load(str(file), config(tmp_path / "cache"))

    def test_a_file_in_place_of_the_folder(self, file: Path, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("")
        with pytest.raises(ModelError, match=r"cannot be kept in .*: Not a dir.*model\.cache_dir="):
            LanguageModel.load(str(file), config(tmp_path / "cache"))
