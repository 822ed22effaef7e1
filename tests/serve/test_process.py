"""`quickstudy serve` as a process of its own: start, SIGTERM, exit status, logs."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from serving import ASK, TOOLS
from typer.testing import CliRunner

from quickstudy import cli
from quickstudy.errors import ConfigError
from quickstudy.model import LanguageModel
from quickstudy.serve import server
from quickstudy.serve.keys import sha256

KEY = "qs-test-key"
MAIN = "import sys; from quickstudy.cli import main; sys.argv[0] = 'quickstudy'; main()"


class Process:
    def __init__(self, *arguments: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "serve", *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                self.lines.append(json.loads(line))

    def url(self) -> str:
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            for line in list(self.lines):
                if found := re.search(r"^serving .* at (http://[\d.:]+)/v1", line["event"]):
                    return found[1]
            time.sleep(0.02)
        raise AssertionError(self.lines)

    def end(self) -> int:
        status = self.process.wait(30)
        self.reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return status


@pytest.fixture
def process(taught: LanguageModel, tmp_path: Path) -> Iterator[Process]:
    folder = tmp_path / "tiny"
    taught.network.save_pretrained(folder)
    taught.tokenizer.save_pretrained(folder)
    settings = tmp_path / "settings.toml"
    settings.write_text(
        "[awareness]\nthreshold = 1.01\n"
        "[augmentation]\ninformative_loss = 0\nno_tool = false\n"
        "[learning]\nstop_loss = 0\nepochs = 40\nlearning_rate = 1e-4\n"
        f'[[serve.keys]]\nname = "ann"\nsha256 = "{sha256(KEY)}"\n'
    )
    started = Process("--model", str(folder), "--config", str(settings), "--port", "0")
    yield started
    started.process.kill()
    started.end()


def test_a_process_from_start_to_end(process: Process) -> None:
    host = process.url()
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"model": "tiny", "messages": [{"role": "user", "content": ASK}], "tools": TOOLS}
    answers: list[httpx2.Response] = []

    def ask() -> None:
        url = f"{host}/v1/chat/completions"
        answers.append(httpx2.post(url, json=body, headers=headers, timeout=60))

    assert httpx2.get(f"{host}/v1/models").status_code == 401
    thread = threading.Thread(target=ask)
    thread.start()
    metric = "quickstudy_requests_practising 1.0"
    until = time.monotonic() + 30
    while metric not in httpx2.get(f"{host}/metrics").text and time.monotonic() < until:
        time.sleep(0.01)
    process.process.send_signal(signal.SIGTERM)
    thread.join(60)
    assert answers[0].status_code == 200
    assert answers[0].json()["quickstudy"]["practised"]
    assert process.end() == 0
    logged = [line for line in process.lines if line.get("path") == "/v1/chat/completions"]
    assert [line["key"] for line in logged] == ["ann"]
    assert logged[0]["request_id"] == answers[0].headers["x-request-id"]
    assert KEY not in json.dumps(process.lines)
    assert ASK not in json.dumps(process.lines)


class TestCommand:
    def test_a_new_key_starts_nothing(self) -> None:
        done = CliRunner().invoke(cli.app, ["serve", "--new-key", "ann"])
        assert done.exit_code == 0
        key = done.stdout.split()[1]
        assert f'name = "ann"\nsha256 = "{sha256(key)}"' in done.stdout

    def test_a_missing_package_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli, "_has", lambda name: name != "uvicorn")
        done = CliRunner().invoke(cli.app, ["serve"])
        assert isinstance(done.exception, ConfigError)
        assert "pip install 'quickstudy[serve]'" in str(done.exception)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--method", "guess"),
            ("--set", "serve.queue=0"),
            ("--set", "serve.kyes=1"),
            ("--port", "8000", "--set", "serve.port=99999"),
        ],
        ids=str,
    )
    def test_a_wrong_setting_starts_nothing(self, arguments: tuple[str, ...]) -> None:
        done = CliRunner().invoke(cli.app, ["serve", *arguments])
        assert isinstance(done.exception, ConfigError)


def test_an_address_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen at 127.0.0.1:{port}: .*--port"):
            server._bound("127.0.0.1", port)
    server._bound("127.0.0.1", port).close()
