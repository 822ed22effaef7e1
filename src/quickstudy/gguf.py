"""GGUF files: what their headers say, and their weights de-quantised once and kept.

The header is read here and not by the `gguf` package: that takes 12 s for the vocabulary of a
0.5B model, and reads past the end of a file that is cut off. Layout (all little-endian):

    "GGUF" version:u32 tensors:u64 keys:u64
    keys:    name:string type:u32 value          string = length:u64 bytes
    tensors: name:string axes:u32 sizes:u64[axes] type:u32 offset:u64
    padding to `general.alignment` (32), then the tensors' data

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import logging
import math
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from quickstudy import checkpoint
from quickstudy.errors import ModelError

log = logging.getLogger(__name__)

# the decoders with a key/value cache among what transformers reads
ARCHITECTURES = frozenset(
    "falcon gemma2 gemma3 gpt-oss gpt2 llama nemotron phi3 qwen2 qwen2moe qwen3 qwen3moe stablelm"
    " starcoder2".split()
)
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIifBQqd", strict=True))
_STRING, _ARRAY = 8, 9


@dataclass
class Header:
    """What a GGUF file says about itself. Arrays are kept as their lengths."""

    keys: dict[str, Any] = field(default_factory=dict)
    tensors: int = 0
    weights: int = 0  # numbers in all tensors
    size: int = 0  # bytes the file must have


def read_header(path: Path) -> Header:
    """Reads the header of a GGUF file.

    Raises:
        ModelError: if the file is no GGUF file, is damaged or is cut off.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != b"GGUF":
                raise ModelError(f"{path} is no GGUF file; name a .gguf file or a model folder")
            return _Reader(data).header()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, struct.error, KeyError, OverflowError) as error:
        size = path.stat().st_size
        raise ModelError(
            f"{path} is cut off or damaged: its header does not end in its {size:,} bytes; "
            "download it again"
        ) from error


def check(path: Path) -> Header:
    """Refuses what cannot be loaded.

    Raises:
        ModelError: says what the file is or lacks, and what to name instead.
    """
    header = read_header(path)
    architecture = header.keys.get("general.architecture", "none")
    if header.keys.get("split.count", 1) > 1:
        raise ModelError(
            f"{path} is one of {header.keys['split.count']} parts of a model; join them with "
            "`llama-gguf-split --merge FIRST-PART JOINED.gguf`"
        )
    if not header.tensors:
        raise ModelError(f"{path} holds a vocabulary and no weights; name the model's own file")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{path} has the architecture {architecture!r}, which is not supported; these are: "
            f"{', '.join(sorted(ARCHITECTURES))}"
        )
    if "tokenizer.ggml.tokens" not in header.keys:
        raise ModelError(f"{path} holds no tokenizer; name a GGUF file of a whole chat model")
    size = path.stat().st_size
    if size < header.size:
        raise ModelError(
            f"{path} is cut off: it has {size:,} bytes of {header.size:,}; download it again"
        )
    return header


def converted(path: Path, dtype: Any, cache_dir: Path) -> Path:
    """The folder with a GGUF file's weights, de-quantised once and kept as safetensors.

    The folder gets its name when it is complete, so half a conversion is never used.

    Raises:
        ModelError: if the file cannot be converted or the folder not written.
    """
    import transformers

    stat = path.stat()
    version = (
        f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{dtype}:{transformers.__version__}"
    )
    digest = hashlib.sha256(version.encode()).hexdigest()[:16]
    folder = cache_dir / "converted" / f"{path.stem}-{digest}"
    if folder.exists():
        try:
            checkpoint.check(folder)
            return folder
        except ModelError as error:  # lost power, say
            log.warning("%s; converting %s again", error, path)
            shutil.rmtree(folder, ignore_errors=True)
    needed = check(path).weights * dtype.itemsize
    elsewhere = "name another folder with --set model.cache_dir=FOLDER"
    log.info("converting %s (once)", path)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    except OSError as error:
        raise ModelError(
            f"converted weights cannot be kept in {folder.parent}: {error.strerror}; {elsewhere}"
        ) from error
    try:
        free = shutil.disk_usage(scratch).free
        if free < needed:
            raise ModelError(
                f"converted weights need {needed / 1e6:,.0f} MB and {folder.parent} has "
                f"{free / 1e6:,.0f} MB left; free some space or {elsewhere}"
            )
        _convert(path, dtype, scratch, elsewhere)
        try:
            os.replace(scratch, folder)
        except OSError:  # another process was faster: its copy is as good
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _convert(path: Path, dtype: Any, folder: Path, elsewhere: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    network, loading = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    checkpoint.check_loaded(str(path), loading)
    try:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the disk may fill meanwhile; safetensors has errors of its own
        raise ModelError(
            f"converted weights cannot be written to {folder.parent}: {error}; {elsewhere}"
        ) from error


class _Reader:
    """Walks a header; what reaches past the end raises `struct.error` or ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 4

    def header(self) -> Header:
        header = Header()
        version, header.tensors, keys = self.take("<IQQ")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        for _ in range(keys):
            name = self.string()
            (kind,) = self.take("<I")
            header.keys[name] = self.value(kind)
        end = 0
        for _ in range(header.tensors):
            self.string()
            (axes,) = self.take("<I")
            numbers = math.prod(self.take(f"<{axes}Q"))
            kind, offset = self.take("<IQ")
            block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            end = max(end, offset + numbers // block * width)
            header.weights += numbers
        alignment = header.keys.get("general.alignment", 32)
        header.size = math.ceil(self.at / alignment) * alignment + end
        return header

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self) -> str:
        (length,) = self.take("<Q")
        self.skip(length)
        return self.data[self.at - length : self.at].decode()

    def skip(self, length: int) -> None:
        if length > len(self.data) - self.at:
            raise ValueError("past the end")
        self.at += length

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.take(f"<{_SCALARS[kind]}")[0]
        inner, length = self.take("<IQ")
        if inner in _SCALARS:
            self.skip(length * struct.calcsize(_SCALARS[inner]))
            return length
        step: Callable[[], object] = self.string if inner == _STRING else lambda: self.value(inner)
        for _ in range(length):
            step()
        return length
