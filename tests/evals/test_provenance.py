"""What a result was made with, read from files made here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from gguf import GGUFWriter, LlamaFileType

from quickstudy.config import Config
from quickstudy.errors import ModelError
from quickstudy.evals import provenance
from quickstudy.evals.benchmarks import BENCHMARKS


def test_a_gguf_file_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "qwen2")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_license("apache-2.0")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    told = provenance.model_facts(str(path), Config())
    assert (told.name, told.quantisation, told.licence) == ("small", "Q4_K_M", "apache-2.0")
    assert told.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_says_what_it_is(tmp_path: Path) -> None:
    tiny_model(torch.bfloat16).network.save_pretrained(tmp_path)
    told = provenance.model_facts(str(tmp_path), Config())
    assert (told.quantisation, told.licence) == ("bfloat16", None)
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert told.sha256 == hashlib.sha256(weights).hexdigest()
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A model\n")
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "gptq"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    told = provenance.model_facts(str(tmp_path), Config())
    assert (told.quantisation, told.licence) == ("gptq", "mit")


def test_weights_in_parts_have_one_digest(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    parts = [tmp_path / f"model-{i}.safetensors" for i in (1, 2)]
    for part in parts:
        part.write_bytes(part.name.encode())
    digest = provenance.model_facts(str(tmp_path), Config()).sha256
    parts[1].write_bytes(b"other")
    assert provenance.model_facts(str(tmp_path), Config()).sha256 != digest


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        provenance.model_facts(str(tmp_path / "no.gguf"), Config())


def test_data_of_several_files_has_one_digest(tmp_path: Path) -> None:
    benchmark = BENCHMARKS["apibank"]
    for file in benchmark.files:
        (tmp_path / file.path).write_text(file.path)
    told = provenance.data_facts(benchmark, tmp_path)
    assert (told.rows, told.licence) == (526, "Apache-2.0")
    (tmp_path / benchmark.files[1].path).write_text("[]")
    assert provenance.data_facts(benchmark, tmp_path).sha256 != told.sha256
    alone = replace(benchmark, files=benchmark.files[:1])
    first = (tmp_path / benchmark.files[0].path).read_bytes()
    assert provenance.data_facts(alone, tmp_path).sha256 == hashlib.sha256(first).hexdigest()


def test_versions_and_machine() -> None:
    assert provenance.versions()["torch"] == torch.__version__
    machine = provenance.machine(torch.device("cpu"))
    assert (machine["device"], machine["threads"]) == ("cpu", torch.get_num_threads())
    assert machine["processor"]
