"""The hub, played by a small HTTP server on this machine: names, refusals, downloads, silence."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub.constants as constants
import pytest

from quickstudy import hub
from quickstudy.catalog import resolve
from quickstudy.config import ModelConfig
from quickstudy.errors import ModelError
from quickstudy.model import LanguageModel

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Models by name: their files, or the status and headers it refuses them with."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.refusals: dict[str, tuple[int, dict[str, str]]] = {}
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
        if name in self.refusals:
            return *self.refusals[name], b"{}"
        if name not in self.files:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        files = self.files[name]
        if "/resolve/" in path:
            content = files[path.rpartition(f"/{SHA}/")[2]]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return 200, {"ETag": etag, "X-Repo-Commit": SHA}, content
        sizes = {file: len(content) for file, content in files.items()}
        if "/tree/" in path:
            tree = [{"type": "file", "path": f, "size": n, "oid": SHA} for f, n in sizes.items()]
            return 200, {}, json.dumps(tree).encode()
        listed = [{"rfilename": file} for file in files]
        return 200, {}, json.dumps({"id": name, "sha": SHA, "siblings": listed}).encode()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = served.answer(urlsplit(self.path).path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: Any) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    _use(monkeypatch, tmp_path, web.server_port)
    yield served
    web.shutdown()
    web.server_close()
    thread.join()


def _use(monkeypatch: pytest.MonkeyPatch, folder: Path, port: int) -> None:
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def refusal(name: str = "org/model") -> str:
    with pytest.raises(ModelError) as caught:
        LanguageModel.load(name, ModelConfig(device="cpu"))
    return str(caught.value)


class TestDownload:
    def test_loads_and_needs_no_hub_afterwards(
        self, server: Hub, tiny: LanguageModel, tmp_path: Path
    ) -> None:
        tiny.network.save_pretrained(tmp_path / "model")
        tiny.tokenizer.save_pretrained(tmp_path / "model")
        files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
        server.files["org/model"] = {**files, "pytorch_model.bin": b"", "onnx/model.onnx": b""}
        loaded = LanguageModel.load("org/model", ModelConfig(device="cpu", dtype="float32"))
        assert loaded.name == "org/model"
        assert not [path for path in server.asked if "pytorch" in path or "onnx" in path]
        server.asked.clear()
        ((name, folder),) = hub.cached()
        assert (name, {path.name for path in folder.iterdir()}) == ("org/model", set(files))
        assert resolve("org/model", tmp_path).path == folder
        LanguageModel.load("org/model", ModelConfig(device="cpu", dtype="float32"))
        assert server.asked == []


class TestRefused:
    def test_an_unknown_name(self, server: Hub) -> None:
        error = refusal("org/nope")
        assert error.startswith("there is no model 'org/nope', neither here nor on http://127")
        assert "quickstudy models" in error

    def test_a_gated_model(self, server: Hub) -> None:
        server.refusals["org/model"] = (403, {"X-Error-Code": "GatedRepo"})
        error = refusal()
        assert "accept its terms at http" in error
        assert "/org/model, then type `hf auth login`" in error

    @pytest.mark.parametrize(
        ("files", "told"),
        [
            (("pytorch_model.bin", "config.json"), "no safetensors on the hub.*save_pretrained"),
            (("model-q4.gguf", "README.md"), "GGUF files: .*`hf download org/model FILE.gguf`"),
            ((), "no safetensors"),
        ],
    )
    def test_other_weights(self, files: tuple[str, ...], told: str, server: Hub) -> None:
        server.files["org/model"] = dict.fromkeys(files, b"")
        with pytest.raises(ModelError, match=told):
            hub.download("org/model")
        assert len(server.asked) == 1

    def test_a_hub_out_of_order(self, server: Hub) -> None:
        server.refusals["org/model"] = (503, {})
        start = time.monotonic()
        assert "cannot be downloaded from http://127.0.0.1" in refusal()
        assert time.monotonic() - start < 5
        assert len(server.asked) == 1, "it is not asked again and again"

    def test_a_cache_that_cannot_be_written(self, server: Hub, tmp_path: Path) -> None:
        server.files["org/model"] = {"model.safetensors": b"", "config.json": b"{}"}
        (tmp_path / "hub").write_text("a file in its place")
        error = refusal()
        assert "cannot be kept in" in error
        assert "set HF_HOME" in error


class TestNoNetwork:
    def test_is_told_at_once_and_without_noise(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            _use(monkeypatch, tmp_path, unused.getsockname()[1])
            start = time.monotonic()
            error = refusal()
        assert time.monotonic() - start < 5
        assert "'org/model' is not here and cannot be downloaded" in error
        assert capfd.readouterr() == ("", "")

    def test_a_hub_that_says_nothing_is_not_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hub, "PATIENCE", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            _use(monkeypatch, tmp_path, silent.getsockname()[1])
            assert "cannot be downloaded" in refusal()

    def test_offline_by_choice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _use(monkeypatch, tmp_path, 9)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "HF_HUB_OFFLINE forbids" in refusal()
