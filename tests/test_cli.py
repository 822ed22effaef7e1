"""The command line: what it prints, where, and with which exit status; never a traceback."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import recorded
from rich.console import Console

from quickstudy import terminal
from quickstudy.cli import main
from quickstudy.config import settings
from quickstudy.model import LanguageModel
from quickstudy.types import (
    STAGES,
    Answer,
    Candidate,
    Episode,
    Example,
    Message,
    Rejected,
    Reply,
    ToolCall,
)

HI = {"id": "hi", "messages": [{"role": "user", "content": "Hi"}]}
BAD = {"id": "bad", "messages": []}
QUICK = ("--method", "base", "--set", "decoding.max_new_tokens=3")
RUN = "from quickstudy.cli import main; main()"


class Done(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def quickstudy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `quickstudy ARGUMENTS` in this process, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    for name in [name for name in os.environ if name.startswith("QUICKSTUDY_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["quickstudy", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        status = ended.value.code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(status if isinstance(status, int) else 0 if status is None else 1, out, err)

    return run


@pytest.fixture
def model(tiny: LanguageModel, tmp_path: Path) -> str:
    """A folder with the tiny model's weights."""
    folder = tmp_path / "tiny-model"
    tiny.network.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return str(folder)


def lines(*items: Any) -> str:
    return "\n".join(item if isinstance(item, str) else json.dumps(item) for item in items)


class TestHelp:
    def test_lists_the_commands(self, quickstudy: Command) -> None:
        done = quickstudy("--help")
        assert done.status == 0
        assert all(command in done.out for command in ("answer", "demo", "config", "models"))

    def test_of_answer_lists_its_options(self, quickstudy: Command) -> None:
        done = quickstudy("answer", "--help")
        assert done.status == 0
        for option in ("--request", "--model", "--method", "--set", "--config", "--json"):
            assert option in done.out

    def test_config_lists_every_setting_and_its_meaning(self, quickstudy: Command) -> None:
        done = quickstudy("config")
        assert done.status == 0
        shown = " ".join(done.out.split())
        for name, default, _ in settings():
            assert name in shown
            assert str(default) in shown

    def test_models_lists_what_is_here(
        self, quickstudy: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "models").mkdir()
        file = tmp_path / "models" / "some.gguf"
        file.write_bytes(b"GGUF" + bytes(3_000_000))
        monkeypatch.setenv("QUICKSTUDY_MODEL__CACHE_DIR", str(tmp_path))
        done = quickstudy("models")
        assert done.status == 0
        assert str(file) in "".join(done.out.split())
        assert "3 MB" in done.out

    def test_models_takes_settings(self, quickstudy: Command, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "some.gguf").write_bytes(b"GGUF")
        (tmp_path / "settings.toml").write_text(f'[model]\ncache_dir = "{tmp_path}"\n')
        for options in (
            ("--set", f"model.cache_dir={tmp_path}"),
            ("--config", str(tmp_path / "settings.toml")),
        ):
            assert "some.gguf" in quickstudy("models", *options).out
        done = quickstudy("models", "--set", "model.cache_dir=~nouser")
        assert done.status == 2
        assert "model.cache_dir = '~nouser'" in done.err

    @pytest.mark.parametrize("arguments", [("answer",), ("sing",), ("answer", "--sing")])
    def test_wrong_usage_is_status_two(self, quickstudy: Command, arguments: Any) -> None:
        done = quickstudy(*arguments)
        assert (done.status, done.out) == (2, "")
        assert done.err

    def test_needs_no_torch(self) -> None:
        """Importing torch and transformers takes seconds."""
        code = (
            "import sys\ntry: main()\n"
            "finally: print({'torch', 'transformers'} & set(sys.modules), file=sys.stderr)"
        )
        for arguments in (["--help"], ["config"], ["answer", "--request", "nowhere.json"]):
            done = subprocess.run(
                [sys.executable, "-c", f"from quickstudy.cli import main; {code}", *arguments],
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.stderr.splitlines()[-1] == "set()"
            assert "Traceback" not in done.stderr


class TestCannotStart:
    """One clear line on standard error, exit status 2, nothing on standard output."""

    @pytest.fixture
    def refused(self, quickstudy: Command) -> Callable[..., str]:
        def run(*arguments: str, stdin: str = json.dumps(HI)) -> str:
            done = quickstudy("answer", *arguments, stdin=stdin)
            assert (done.status, done.out) == (2, "")
            assert done.err.startswith("quickstudy: ")
            return " ".join(done.err.split())

        return run

    @pytest.mark.parametrize(
        ("setting", "nearest"), [("learning.rnk", "learning.rank"), ("metod", "method")]
    )
    def test_an_unknown_setting_names_the_nearest(
        self, refused: Callable[..., str], setting: str, nearest: str
    ) -> None:
        error = refused("--request", "-", "--set", f"{setting}=8")
        assert f"unknown setting {setting}; did you mean {nearest}?" in error

    def test_a_setting_out_of_range(self, refused: Callable[..., str]) -> None:
        assert "learning.rank = '0'" in refused("--request", "-", "--set", "learning.rank=0")

    def test_a_setting_without_a_value(self, refused: Callable[..., str]) -> None:
        assert "stage.field=value" in refused("--request", "-", "--set", "learning.rank")

    def test_an_unknown_method(self, refused: Callable[..., str]) -> None:
        assert "method" in refused("--request", "-", "--method", "magic")

    def test_a_missing_settings_file(self, refused: Callable[..., str]) -> None:
        assert "nowhere.toml" in refused("--request", "-", "--config", "nowhere.toml")

    def test_a_missing_request_file(self, refused: Callable[..., str]) -> None:
        assert "cannot read nowhere.json: No such file" in refused("--request", "nowhere.json")

    def test_a_folder(self, refused: Callable[..., str], tmp_path: Path) -> None:
        assert "cannot read" in refused("--request", str(tmp_path))

    def test_what_is_no_text(self, refused: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "image").write_bytes(b"\xff\xd8\xff")
        assert "not UTF-8" in refused("--request", str(tmp_path / "image"))

    def test_an_empty_file(self, refused: Callable[..., str]) -> None:
        assert "no request" in refused("--request", "-", stdin=" \n")

    @pytest.mark.parametrize("name", ["./nowhere.gguf", "nowhere", "[/red]"])
    def test_a_missing_model(self, refused: Callable[..., str], name: str) -> None:
        assert repr(name) in refused("--request", "-", "--model", name)

    def test_a_mistyped_model(self, refused: Callable[..., str]) -> None:
        error = refused("--request", "-", "--model", "smolm2")
        assert "did you mean smollm2? `quickstudy models` lists" in error

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "is no GGUF file"),
            (b"GGUF" + bytes(40), "is cut off or damaged"),
        ],
    )
    def test_a_broken_model(
        self, refused: Callable[..., str], tmp_path: Path, content: bytes, told: str
    ) -> None:
        (tmp_path / "m.gguf").write_bytes(content)
        error = refused("--request", "-", "--model", str(tmp_path / "m.gguf"))
        assert told in error

    def test_a_base_model(self, quickstudy: Command, model: str) -> None:
        (Path(model) / "chat_template.jinja").unlink()
        done = quickstudy("answer", "--request", "-", "--model", model, stdin=json.dumps(HI))
        assert (done.status, done.out) == (2, "")
        told = "has no chat template: it is a base model; use its -Instruct variant"
        assert done.err.splitlines()[-1] == f"quickstudy: {Path(model).name} {told}"

    def test_an_unknown_variable(
        self, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QUICKSTUDY_SED", "1")
        assert "did you mean QUICKSTUDY_SEED?" in refused("--request", "-")

    def test_contradictory_settings(self, refused: Callable[..., str]) -> None:
        error = refused("--request", "-", "--set", "augmentation.verify=form")
        assert "contradicts augmentation.strategy" in error

    def test_a_teacher_of_another_method(self, refused: Callable[..., str]) -> None:
        error = refused("--request", "-", "--teacher", "smollm2", "--method", "tt-icl")
        assert "--teacher contradicts --method tt-icl; leave one of them out" in error

    def test_a_method_said_twice(self, refused: Callable[..., str]) -> None:
        error = refused("--request", "-", "--method", "tt-icl", "--set", "method=tt-si")
        assert "--method contradicts --set method=tt-si; leave one of them out" in error

    def test_an_output_folder_that_is_a_file(self, quickstudy: Command, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        done = quickstudy("demo", "--out", str(tmp_path / "out"))
        assert (done.status, done.out) == (2, "")
        told = f"quickstudy: cannot write to {tmp_path / 'out'}: it is a file; name another folder"
        assert done.err.startswith(told)

    def test_from_a_shell(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "answer", "--request", str(tmp_path / "nowhere.json")],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("quickstudy: cannot read")
        assert "Traceback" not in done.stderr


def tool(**parameters: Any) -> dict[str, Any]:
    return {"name": "f", "parameters": {"type": "object", **parameters}}


class TestBadRequests:
    """What is wrong with a request is told in a line of its own; no model is loaded for it."""

    @pytest.mark.parametrize(
        ("request_", "told"),
        [
            ({"messages": []}, "messages: expected a non-empty list"),
            ({}, "messages are missing; give"),
            ({"messages": [{"role": "boss"}]}, "unknown role 'boss'; use one of system, user"),
            ({**HI, "tools": [tool(properties=[])]}, "are no JSON Schema (at properties)"),
            ({**HI, "tools": [{**tool(), "parameters": {"type": "array"}}]}, '"type": "object"'),
            ({**HI, "tools": [tool(), tool()]}, "'f' is listed twice; give each tool its own name"),
            (
                {**HI, "tools": [tool(properties={"x": {"$ref": "#/properties/x"}})]},
                "the references #/properties/x lead in a circle",
            ),
            (
                {**HI, "tools": [tool(properties={"x": {"$ref": "http://a.b/c"}})]},
                "$ref 'http://a.b/c' leads out of the schema",
            ),
            ('{"messages": [\n"Hi",\n}', "line 3 is no JSON: Expecting value at column 1"),
        ],
    )
    def test_each_in_its_own_words(self, quickstudy: Command, request_: Any, told: str) -> None:
        done = quickstudy("answer", "--request", "-", "--model", "nowhere", stdin=lines(request_))
        assert (done.status, done.out) == (1, "")
        assert told in done.err
        assert len(done.err.splitlines()) == 1

    def test_a_prompt_longer_than_the_context(self, quickstudy: Command, model: str) -> None:
        request = {"messages": [{"role": "user", "content": "a" * 5000}]}
        done = quickstudy(
            "answer", "--request", "-", "--model", model, *QUICK, stdin=lines(request)
        )
        assert (done.status, done.out) == (1, "")
        assert " tokens and the model reads 4096; shorten the conversation" in done.err


def shell(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, *arguments]

    def hear_ctrl_c() -> None:  # a job in the background is started deaf to it, and so its children
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c, **options
    )


class TestReport:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        return recorded.whole_run(tmp_path / "run", ["sealtool"], ["base", "tt-si"], count=3)

    def test_writes_a_page_into_the_first_folder(self, quickstudy: Command, run: Path) -> None:
        other = recorded.whole_run(run.parent / "other", ["sealtool"], ["base"], count=2)
        done = quickstudy("report", str(run), str(other))
        assert (done.status, done.out) == (0, f"open {run / 'report.html'}\n")
        assert "<h1>" in (run / "report.html").read_text()
        assert not (other / "report.html").exists()

    def test_writes_where_it_is_told_to(self, quickstudy: Command, run: Path) -> None:
        page = run.parent / "new" / "page.html"
        assert quickstudy("report", str(run), "--out", str(page)).status == 0
        assert "<h1>" in page.read_text()

    def test_prints_tables(self, quickstudy: Command, run: Path) -> None:
        done = quickstudy("report", str(run), "--markdown")
        assert done.status == 0
        assert "| tt-si | " in done.out
        assert not (run / "report.html").exists()

    def test_a_folder_that_is_no_run(self, quickstudy: Command, tmp_path: Path) -> None:
        done = quickstudy("report", str(tmp_path))
        assert (done.status, done.out) == (2, "")
        assert "summary.json: No such file" in done.err
        assert "name folders that `quickstudy eval` wrote" in done.err

    def test_a_page_that_cannot_be_written(self, quickstudy: Command, run: Path) -> None:
        done = quickstudy("report", str(run), "--out", str(run))
        assert (done.status, done.out) == (2, "")
        assert "it is no ordinary file" in done.err

    def test_markdown_has_no_file(self, quickstudy: Command, run: Path) -> None:
        done = quickstudy("report", str(run), "--markdown", "--out", "x")
        assert done.status == 2
        assert "exclude each other" in done.err


class TestOutput:
    @pytest.mark.parametrize(
        "arguments", [("config",), ("answer", "--json", "--request", "/dev/stdin")]
    )
    def test_a_full_disk_is_one_line(self, arguments: tuple[str, ...]) -> None:
        with open("/dev/full", "w") as full:
            process = shell(*arguments, stdin=subprocess.PIPE, stdout=full)
            _, error = process.communicate(lines(BAD), timeout=120)
        assert process.returncode == 2
        (told,) = error.splitlines()
        assert told.startswith("quickstudy: cannot write the output: ")
        assert "No space left on device" in told

    def test_a_reader_that_leaves_is_no_fault(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        process = shell("config", stdout=writing)
        os.close(writing)
        assert process.communicate(timeout=120)[1] == ""
        assert process.returncode == 1

    def test_ctrl_c_is_one_line_and_keeps_what_is_finished(
        self, model: str, tmp_path: Path
    ) -> None:
        endless = {"id": "endless", "messages": "Hi"}
        (tmp_path / "requests.jsonl").write_text(lines(BAD, *[endless] * 1000))
        process = shell(
            *("answer", "--json", "--request", str(tmp_path / "requests.jsonl"), "--model", model),
            *("--method", "base", "--set", "decoding.max_new_tokens=4000"),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate(timeout=120)
        assert process.returncode == 130
        assert error.splitlines()[-1] == "quickstudy: stopped"
        assert "Traceback" not in error
        assert json.loads(first)["id"] == "bad"
        assert all(json.loads(line)["id"] == "endless" for line in rest.splitlines())


class TestOnlyBadRequests:
    def test_cost_no_model(self, quickstudy: Command) -> None:
        """The model is not even looked for."""
        done = quickstudy("answer", "--request", "-", "--model", "nowhere", stdin=json.dumps(BAD))
        assert (done.status, done.out) == (1, "")
        assert "request bad: messages" in done.err

    def test_as_json(self, quickstudy: Command) -> None:
        done = quickstudy("answer", "--json", "--request", "-", stdin=lines(BAD, "{oops"))
        assert done.status == 1
        first, second = map(json.loads, done.out.splitlines())
        assert (first["id"], second["id"]) == ("bad", 2)
        assert "no JSON" in second["error"]

    @pytest.mark.parametrize("id", ["[/red]", "é\n"])
    def test_whatever_their_ids(self, quickstudy: Command, id: str) -> None:
        asked = json.dumps({**BAD, "id": id})
        assert quickstudy("answer", "--request", "-", stdin=asked).status == 1
        done = quickstudy("answer", "--json", "--request", "-", stdin=asked)
        assert (done.status, json.loads(done.out)["id"]) == (1, id)

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_half_a_surrogate_pair_is_printed_somehow(self, options: tuple[str, ...]) -> None:
        """JSON can spell what UTF-8 cannot."""
        done = subprocess.run(
            [sys.executable, "-c", RUN, "answer", "--request", "-", *options],
            input=lines({**BAD, "id": "\ud800"}, {**BAD, "id": "next"}),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        if options:
            items = [json.loads(line) for line in done.stdout.splitlines()]
            assert [item.keys() for item in items] == [{"id", "error"}] * 2
            assert items[1]["id"] == "next"
        else:
            assert "request next:" in done.stderr


class TestAnswer:
    def test_plainly(self, quickstudy: Command, model: str, tmp_path: Path) -> None:
        (tmp_path / "request.json").write_text(json.dumps(HI))
        done = quickstudy(
            "answer", "--request", str(tmp_path / "request.json"), "--model", model, *QUICK
        )
        assert done.status == 0
        assert done.out.strip()
        assert not done.out.lstrip().startswith("{")

    def test_as_json_with_a_bad_line_in_the_middle(self, quickstudy: Command, model: str) -> None:
        done = quickstudy(
            *("answer", "--json", "--request", "-", "--model", model, *QUICK),
            stdin=lines(HI, "{oops", {"messages": "Bye"}),
        )
        assert done.status == 1
        first, bad, last = map(json.loads, done.out.splitlines())
        assert [item["id"] for item in (first, bad, last)] == ["hi", 2, 3]
        assert bad.keys() == {"id", "error"}
        for answer in (first, last):
            assert answer.keys() == {"id", "content", "tool_calls", "episode"}
            assert answer["episode"]["method"] == "base"

    def test_settings_come_from_a_file_and_the_command_line(
        self, quickstudy: Command, model: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "settings.toml"
        file.write_text('method = "base"\n[awareness]\nthreshold = 0.25\n')
        done = quickstudy(
            *("answer", "--json", "--request", "-", "--model", model, "--config", str(file)),
            *("--set", "decoding.max_new_tokens=1"),
            stdin=json.dumps(HI),
        )
        episode = json.loads(done.out)["episode"]
        assert (episode["method"], episode["threshold"]) == ("base", 0.25)
        assert len(json.loads(done.out)["content"]) <= 1

    @pytest.mark.parametrize("id", ["hi", "[/red]"])
    def test_explained(self, quickstudy: Command, model: str, id: str) -> None:
        done = quickstudy(
            *("answer", "--explain", "--request", "-", "--model", model),
            *("--set", "decoding.max_new_tokens=3", "--set", "awareness.threshold=1.01"),
            stdin=json.dumps({**HI, "id": id}),
        )
        assert done.status == 0
        assert f"request {id}" in done.out
        for heading in ("Draft", "Certainty", "Answered without practice:", "Answer", "Seconds"):
            assert heading in done.out

    @pytest.mark.filterwarnings("default")
    def test_fields_that_are_not_read_are_warned_of(self, quickstudy: Command) -> None:
        done = quickstudy("answer", "--request", "-", stdin=json.dumps({**BAD, "stream": True}))
        assert "warning: fields ignored: stream" in done.err

    @pytest.mark.model
    def test_by_the_embedded_model_from_a_shell(self) -> None:
        done = subprocess.run(
            [
                *(sys.executable, "-c", RUN, "answer", "--json", "--request", "-"),
                *("--model", "smollm2", "--method", "base"),
                *("--set", "decoding.max_new_tokens=24"),
            ],
            input=lines(HI, '{"messages": ', {"messages": "Say yes."}),
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 1, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert [answer["id"] for answer in answers] == ["hi", 2, 3]
        assert answers[0]["content"]
        assert answers[2]["content"]
        assert "no JSON" in answers[1]["error"]
        assert "Traceback" not in done.stderr


class TestTerminal:
    """What a person sees is text, never markup."""

    EXAMPLE = Example(
        (Message("user", "Dim [/the] attic"),),
        (ToolCall("dim", {"room": "attic", "n": 1}),),
        "substitution",
    )
    EPISODE = Episode(
        "tt-si",
        0.25,
        0.9,
        True,
        "no [/b] left",
        Reply("[/draft]", EXAMPLE.tool_calls),
        (Candidate("[/x]", -1.5), Candidate("y", float("-inf"))),
        (EXAMPLE,),
        (Rejected(EXAMPLE, "it is [/bad]"),),
        (0.5, 0.125),
        seconds=dict.fromkeys(STAGES, 1.0),
    )

    @staticmethod
    def shown(show: Callable[[Console], None]) -> str:
        console = Console(file=io.StringIO(), width=200)
        show(console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    def test_explain_tells_the_whole_cycle(self) -> None:
        answer = Answer("[/words]", self.EXAMPLE.tool_calls, self.EPISODE, "[/id]")
        text = self.shown(lambda console: terminal.explain(console, answer))
        for part in (
            "request [/id]",
            "[/draft]",
            "Certainty 0.250 < 0.9",
            "unsure",
            "log P   -1.500",
            "Dim [/the] attic",
            'dim(room="attic", n=1)',
            "it is [/bad]",
            "0.500 → 0.125",
            "no [/b] left",
            "[/words]",
            '{"name": "dim", "arguments": {"room": "attic", "n": 1}}',
        ):
            assert part in text

    def test_demo_table_has_a_row_a_request(self) -> None:
        line = {
            **Answer("", (), self.EPISODE).to_json(),
            "request": "Dim [/the] attic",
            "draft_correct": False,
            "correct": True,
        }
        fell_back = {**line, "episode": {**line["episode"], "practised": False, "certainty": None}}
        text = self.shown(
            lambda console: console.print(terminal.demo_table([line, fell_back], 200))
        )
        first, second = (row for row in text.splitlines() if "Dim [/the] attic" in row)
        assert "0.25" in first
        assert "yes" in first
        assert first.index("✗") < first.index("✓")
        assert "7.0" in first
        assert "–" in second
        assert "fell back" in second
