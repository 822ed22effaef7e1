"""Which files a folder holds, and fetching them from a server that is real and not trusted."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import benchmark_rows as rows
import pytest

from quickstudy.cli import main
from quickstudy.errors import DataError
from quickstudy.evals import data
from quickstudy.evals.benchmarks import FILES, DataFile, sealtool, train
from quickstudy.evals.benchmarks.toolalpaca import without_components

CONTENT = json.dumps(rows.SEALTOOL).encode()


def known(content: bytes, **more: Any) -> DataFile:
    """Seal-Tools' file, as if it had this content."""
    digest = hashlib.sha256(content).hexdigest()
    return replace(sealtool.FILE, sha256=digest, rows=2, **{"urls": (), **more})


@pytest.fixture
def served() -> Iterator[dict[str, Any]]:
    """What a server on this machine answers, by path; `url` is where it is, `asked` what it got."""
    answers: dict[str, Any] = {"asked": []}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers["asked"].append(self.path)
            content = answers.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    answers["url"] = f"http://127.0.0.1:{server.server_port}"
    yield answers
    server.shutdown()
    server.server_close()


class TestCheck:
    def one(self, folder: Path, content: bytes | None, file: DataFile) -> data.Checked:
        if content is not None:
            (folder / file.path).write_bytes(content)
        (checked,) = data.check(folder, [file])
        return checked

    def test_good(self, tmp_path: Path) -> None:
        checked = self.one(tmp_path, CONTENT, known(CONTENT))
        assert (checked.state, checked.rows, checked.error) == ("good", 2, None)

    def test_missing(self, tmp_path: Path) -> None:
        checked = self.one(tmp_path, None, known(CONTENT))
        assert (checked.state, checked.rows) == ("missing", None)
        assert str(tmp_path / "sealtool.json") in str(checked.error)

    def test_changed(self, tmp_path: Path) -> None:
        checked = self.one(tmp_path, CONTENT + b"\n", known(CONTENT))
        assert (checked.state, checked.rows, checked.malformed) == ("changed", 2, ())

    def test_malformed_rows_are_all_named(self, tmp_path: Path) -> None:
        content = json.dumps([*rows.SEALTOOL, {"query": "q"}, 5, *rows.SEALTOOL]).encode()
        checked = self.one(tmp_path, content, known(CONTENT))
        assert (checked.state, checked.rows) == ("malformed", 6)
        assert [bad.row for bad in checked.malformed] == [2, 3]
        assert checked.malformed[0].error == "it lacks 'tools'"

    @pytest.mark.parametrize("content", [b"{", b"{}", b"\xff"])
    def test_no_rows_at_all(self, tmp_path: Path, content: bytes) -> None:
        checked = self.one(tmp_path, content, known(CONTENT))
        assert (checked.state, checked.rows) == ("malformed", None)
        assert "sealtool.json is no" in str(checked.error)

    def test_a_folder_in_a_files_place(self, tmp_path: Path) -> None:
        (tmp_path / "sealtool.json").mkdir()
        (checked,) = data.check(tmp_path, [sealtool.FILE])
        assert checked.state == "malformed"

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no folder"):
            data.check(tmp_path / "missing")

    def test_rows_are_converted_before_they_are_judged(self, tmp_path: Path) -> None:
        file = known(b"", convert=without_components)
        content = json.dumps([{**rows.SEALTOOL[0], "tools": [{}]}]).encode()
        assert self.one(tmp_path, content, file).malformed[0].error == "it lacks 'name'"


class TestFetch:
    def test_a_file_as_it_is(self, tmp_path: Path, served: dict[str, Any]) -> None:
        served["/a.json"] = CONTENT
        file = known(CONTENT, urls=(f"{served['url']}/a.json",))
        told: list[str] = []
        assert data.fetch(tmp_path / "new", [file], told.append) == {}
        assert (tmp_path / "new" / "sealtool.json").read_bytes() == CONTENT
        assert told == [f"fetched sealtool.json: {len(CONTENT):,} bytes, 2 rows"]

    def test_what_is_there_stays(self, tmp_path: Path, served: dict[str, Any]) -> None:
        (tmp_path / "sealtool.json").write_text("mine")
        file = known(CONTENT, urls=(f"{served['url']}/a.json",))
        assert data.fetch(tmp_path, [file]) == {}
        assert (tmp_path / "sealtool.json").read_text() == "mine"
        assert served["asked"] == []

    def test_another_content_is_not_kept(self, tmp_path: Path, served: dict[str, Any]) -> None:
        served["/a.json"] = CONTENT + b" "
        file = known(CONTENT, urls=(f"{served['url']}/a.json",))
        assert "not what it was" in data.fetch(tmp_path, [file])["sealtool.json"]
        assert list(tmp_path.iterdir()) == []

    def test_too_much_is_not_read_to_its_end(
        self, tmp_path: Path, served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(data, "MOST_BYTES", 1 << 20)
        served["/a.json"] = b"x" * ((1 << 20) + 1)
        file = known(CONTENT, urls=(f"{served['url']}/a.json",))
        assert "more than 1 MB" in data.fetch(tmp_path, [file])["sealtool.json"]

    @pytest.mark.parametrize("place", ["{url}/b.json", "http://127.0.0.1:9/a", "http://[", "x"])
    def test_nothing_to_be_had(self, place: str, tmp_path: Path, served: dict[str, Any]) -> None:
        url = place.format(url=served["url"])
        told = data.fetch(tmp_path, [known(CONTENT, urls=(url,))])["sealtool.json"]
        assert url in told

    def test_one_failure_costs_no_other_file(self, tmp_path: Path, served: dict[str, Any]) -> None:
        served["/a.json"] = CONTENT
        lost = replace(known(CONTENT), path="lost.json")
        file = known(CONTENT, urls=(f"{served['url']}/a.json",))
        failed = data.fetch(tmp_path, [lost, file])
        assert list(failed) == ["lost.json"]
        assert "stands nowhere as it is" in failed["lost.json"]
        assert (tmp_path / "sealtool.json").exists()

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match="cannot make the folder"):
            data.fetch(tmp_path / "file" / "data")

    def test_public_places_are_pinned(self) -> None:
        urls = [url for file in FILES for url in file.urls]
        assert len(urls) == 6
        for url in urls:
            assert url.startswith("https://raw.githubusercontent.com/")
            assert len(url.split("/")[5]) == 40


def prompt(row: rows.Row, answers: str) -> rows.Row:
    """A training row as Seal-Tools publishes it: text for fine-tuning."""
    listed = [
        {
            "api_name": tool["name"],
            "api_description": tool["description"],
            "field": "Harbours",
            "parameters": {
                name: {key: value for key, value in schema.items() if key != "required"}
                for name, schema in tool["parameters"].items()
            },
            "required": list(tool["parameters"]),
            "responses": {},
        }
        for tool in row["tools"]
    ]
    asked = f'Choose.\napi_list = {listed}\ntask_instruction = "{row["query"]}"\nOutput:\n'
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answers}]
    return {"id": row["id"], "conversations": turns}


class TestRebuild:
    def test_training_rows_out_of_prompts(self, tmp_path: Path) -> None:
        rows.write(tmp_path)
        kept = {**rows.train_row(4), "query": 'Reserve "slip 4.'}
        tested = {**rows.train_row(5), "query": rows.SEALTOOL[0]["query"]}
        first = [
            prompt(kept, "[{'api': 'reserve0', 'parameters': {'slip': 4}, 'responses': []}]"),
            prompt(tested, "[{'api': 'reserve0', 'parameters': {'slip': 5}}]"),
        ]
        nested = "[{'api': 'reserve0', 'parameters': {'slip': 'API_call_0'}}]"
        second = [prompt(rows.train_row(6), nested)]
        parts = [json.dumps(part).encode() for part in (first, second)]
        assert json.loads(train.rebuild(parts, tmp_path)) == [kept]

    @pytest.mark.parametrize(
        "text", ["[", "5", '[{"id": 1}]', '[{"id": 1, "conversations": [{"value": ""}]}]']
    )
    def test_other_prompts_are_told(
        self, text: str, tmp_path: Path, served: dict[str, Any]
    ) -> None:
        rows.write(tmp_path)
        (tmp_path / train.FILE.path).unlink()
        served["/dev.json"] = text.encode()
        file = replace(train.FILE, urls=(f"{served['url']}/dev.json",))
        assert "cannot be built" in data.fetch(tmp_path, [file])[train.FILE.path]

    def test_without_the_test_set(self, tmp_path: Path, served: dict[str, Any]) -> None:
        served["/dev.json"] = b"[]"
        file = replace(train.FILE, urls=(f"{served['url']}/dev.json",))
        assert "sealtool.json" in data.fetch(tmp_path, [file])[train.FILE.path]


class TestCommand:
    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr("sys.argv", ["quickstudy", "data", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    def test_the_list(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(monkeypatch, "--json") == 0
        told = json.loads(capsys.readouterr().out)["benchmarks"]
        assert {item["name"]: item["rows"] for item in told} == {
            "nexusraven": 318,
            "sealtool": 294,
            "toolalpaca": 114,
            "apibank": 526,
            "apibank_l1": 399,
            "apibank_l2": 127,
            "abstain": 100,
        }
        assert told[0]["licence"] == "CC-BY-NC-4.0: evaluation only"
        assert self.run(monkeypatch) == 0
        assert "nexusraven" in capsys.readouterr().out

    def test_a_folder_with_faults(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows.write(tmp_path)
        (tmp_path / "NexusRaven.json").unlink()
        (tmp_path / "toolalpaca.json").write_text(json.dumps([{}] * 5))
        assert self.run(monkeypatch, "--data", str(tmp_path)) == 1
        shown = capsys.readouterr()
        assert "missing" in shown.out
        assert "changed" in shown.out
        assert "toolalpaca.json, row 2: it lacks 'tools'" in shown.err
        assert "toolalpaca.json: 2 more rows are malformed" in shown.err
        assert self.run(monkeypatch, "--data", str(tmp_path), "--json") == 1
        told = {file["path"]: file for file in json.loads(capsys.readouterr().out)["files"]}
        assert told["NexusRaven.json"]["state"] == "missing"
        assert len(told["toolalpaca.json"]["malformed"]) == 5

    def test_a_good_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "sealtool.json").write_bytes(CONTENT)
        monkeypatch.setattr(data.check, "__defaults__", ([known(CONTENT)],))
        assert self.run(monkeypatch, "--data", str(tmp_path)) == 0

    def test_fetching_tells_what_cannot_be_had(
        self,
        tmp_path: Path,
        served: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        served["/a.json"] = CONTENT
        files = [known(CONTENT, urls=(f"{served['url']}/a.json",)), replace(FILES[0], urls=())]
        monkeypatch.setattr(data.fetch, "__defaults__", (files, print))
        monkeypatch.setattr(data.check, "__defaults__", (files,))
        assert self.run(monkeypatch, "--data", str(tmp_path), "--fetch") == 1
        told = capsys.readouterr().err
        assert "fetched sealtool.json" in told
        assert "NexusRaven.json stands nowhere as it is" in told

    def test_fetching_needs_a_folder(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(monkeypatch, "--fetch") == 2
        assert "name it with --data" in capsys.readouterr().err
