"""`quickstudy eval` on the tiny model: what is written, that it resumes, that it repeats itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import taught
from alike import alike
from rich.console import Console

from quickstudy import jsonlines
from quickstudy.cli import main
from quickstudy.config import Config
from quickstudy.errors import ConfigError, QuickstudyError
from quickstudy.evals import provenance
from quickstudy.evals.plan import Plan
from quickstudy.evals.progress import Progress
from quickstudy.evals.records import Record, Run, Summary
from quickstudy.evals.run import evaluate
from quickstudy.methods import parse
from quickstudy.methods.voting import Majority
from quickstudy.model import LanguageModel

METHODS = ("tt-si", "tt-si+repair", "tt-icl", "majority", "repair", "other-request")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return taught.taught()


@pytest.fixture(scope="module")
def folder(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as files, and the data beside it."""
    folder = tmp_path_factory.mktemp("here")
    taught.save(model, folder / "tiny")
    taught.write_data(folder / "data")
    return folder


@pytest.fixture
def plan(folder: Path, tmp_path: Path) -> Plan:
    return Plan(
        model=str(folder / "tiny"),
        data=folder / "data",
        out=tmp_path / "run",
        benchmarks=["sealtool"],
        methods=METHODS,
        overrides=taught.QUICK,
        samples=3,
    )


def run(plan: Plan, model: LanguageModel) -> Summary:
    with Progress(Console(quiet=True)) as progress:
        return evaluate(plan, progress, lambda spec, config: model)


def no_model(spec: str, config: Config) -> LanguageModel:
    raise AssertionError("nothing was left to run")


def lines(plan: Plan) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = jsonlines.read(plan.out / "records.jsonl")
    return read


def answers(plan: Plan) -> list[Any]:
    """Of each line what one seed decides."""
    timed = {"seconds", "peak_rss_mb"}
    return [{key: value for key, value in line.items() if key not in timed} for line in lines(plan)]


@pytest.fixture(scope="module")
def whole(model: LanguageModel, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A run of all methods over all rows."""
    plan = Plan(
        str(folder / "tiny"),
        folder / "data",
        tmp_path_factory.mktemp("whole") / "run",
        ["sealtool"],
        METHODS,
        overrides=taught.QUICK,
        samples=3,
        probe=True,
    )
    run(plan, model)
    return plan


class TestRecords:
    def test_a_line_for_every_item_and_method(self, whole: Plan) -> None:
        read = [Record.model_validate(line) for line in lines(whole)]
        assert len({record.key for record in read}) == len(read) == 5 * 7
        assert {record.method for record in read} == {"base", *METHODS}
        assert [record.place for record in read[::7]] == [0, 1, 2, 3, 4]

    def test_a_line_has_what_happened(self, whole: Plan) -> None:
        told = next(r for r in lines(whole) if r["method"] == "tt-si" and r["practised"])
        assert told["triggered"]
        assert told["certainty"] < told["threshold"] == 1.01
        assert told["gold"][0]["name"] == "set_light"
        assert told["draft"]["tool_calls"] == [{"name": "set_light", "arguments": {"level": 40}}]
        assert " to " in told["examples"][0]["request"]
        assert told["examples_trained"] == len(told["examples"])
        assert told["gradient_steps"] == len(told["losses"]) == 1
        assert told["seconds"].keys() >= {"prefill", "draft", "synthesis", "practice", "answer"}
        choice = told["draft"]["choices"][0]
        assert 0 <= choice["margin"] <= 1
        assert choice["entropy"] >= 0

    def test_a_wrong_answer_says_why(self, whole: Plan) -> None:
        base = {line["id"]: line["verdict"] for line in lines(whole) if line["method"] == "base"}
        assert base["sealtool-0"] == {"correct": True, "unscored": None, "errors": []}
        (error,) = base["sealtool-2"]["errors"]
        assert error["kind"] == "wrong value"
        assert base["sealtool-4"]["correct"] is None
        assert "not listed" in base["sealtool-4"]["unscored"]

    def test_estimators_can_be_compared_later(self, whole: Plan) -> None:
        """With --probe: scores of the names and samples, once a row, with base's draft."""
        for line in lines(whole):
            draft = line["draft"]
            if line["method"] in ("base", "repair"):
                assert draft["names"].keys() == {"set_light"}
                assert len(draft["samples"]) == Config().awareness.samples
                assert draft["temperature"] == 1.0
            elif line["method"] == "majority":
                assert len(draft["samples"]) == 3
            else:
                assert draft["names"] is None
                assert draft["samples"] is None

    def test_repaired_lines_are_the_others_repaired(self, whole: Plan) -> None:
        by_method = {(line["id"], line["method"]): line for line in lines(whole)}
        for line in lines(whole):
            if parse(line["method"]).repaired:
                plain = by_method[line["id"], parse(line["method"]).parent]
                assert line["draft"] == plain["draft"]
                assert line["examples"] == plain["examples"]
                assert line["seconds"].keys() - plain["seconds"].keys() == {"repair"}


class TestResume:
    def test_nothing_is_done_twice(self, whole: Plan) -> None:
        before = (whole.out / "records.jsonl").read_bytes()
        told = (whole.out / "summary.json").read_bytes()
        (whole.out / "summary.json").unlink()
        with Progress(Console(quiet=True)) as progress:
            evaluate(whole, progress, no_model)
        assert (whole.out / "records.jsonl").read_bytes() == before
        assert (whole.out / "summary.json").read_bytes() == told

    def test_a_run_that_was_cut_off_comes_to_the_same(
        self, plan: Plan, model: LanguageModel, whole: Plan
    ) -> None:
        """In the middle of a row, and of a line."""
        run(replace(plan, limit=2), model)
        content = (plan.out / "records.jsonl").read_bytes()
        (plan.out / "records.jsonl").write_bytes(content[: len(content) * 2 // 3])
        run(replace(plan, probe=True), model)
        ours = {(line["id"], line["method"]): line for line in answers(plan)}
        assert len(ours) == len(lines(plan)) == 5 * 7
        for line in answers(whole):
            mine = ours[line["id"], line["method"]]
            assert mine["answer"] == line["answer"]
            assert mine["examples"] == line["examples"]
            assert alike(mine["losses"], line["losses"])

    def test_one_seed_one_answer(self, plan: Plan, model: LanguageModel) -> None:
        run(replace(plan, limit=2), model)
        other = replace(plan, limit=2, out=plan.out.with_name("again"))
        run(other, model)
        assert alike(answers(plan), answers(other))

    def test_methods_and_rows_may_be_added(self, plan: Plan, model: LanguageModel) -> None:
        run(replace(plan, limit=1, methods=["tt-si"]), model)
        first = lines(plan)
        told = run(replace(plan, limit=2, methods=["repair"]), model)
        assert lines(plan)[:2] == first
        assert [line["method"] for line in lines(plan)[2:]] == ["repair", "base", "repair"]
        counts = {n: m.n + m.unscored for n, m in told.benchmarks["sealtool"].items()}
        assert counts == {"base": 2, "tt-si": 1, "repair": 2}

    def test_every_machine_is_told(
        self, plan: Plan, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = {"processor": "one"}, {"processor": "two"}
        for limit, machine in ((1, first), (2, second), (3, first), (4, first)):
            monkeypatch.setattr(provenance, "machine", lambda device, told=machine: told)
            told = run(replace(plan, methods=["base"], limit=limit), model)
        assert told.machine == first
        assert told.other_machines == (second,)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"overrides": [*taught.QUICK, "learning.rank=3"]}, "learning.rank of base = 2"),
            ({"seed": 5}, "seed = 0, and now it is 5"),
            ({"offset": 1}, "offset of sealtool = 0, and now it is 1"),
            ({"samples": 4}, "samples = 3"),
        ],
    )
    def test_other_settings_are_refused(
        self, whole: Plan, change: dict[str, Any], told: str
    ) -> None:
        before = (whole.out / "run.json").read_bytes()
        with pytest.raises(ConfigError) as caught, Progress(Console(quiet=True)) as progress:
            evaluate(replace(whole, **change), progress, no_model)
        assert told in str(caught.value)
        assert "another --out" in str(caught.value)
        assert (whole.out / "run.json").read_bytes() == before

    def test_another_model_and_other_data_are_refused(
        self, whole: Plan, model: LanguageModel, tmp_path: Path
    ) -> None:
        other = taught.save(taught.taught(steps=1), tmp_path / "tiny")
        data = taught.write_data(tmp_path / "data")
        (data / "sealtool.json").write_text(json.dumps(taught.ROWS[:2]))
        for change, told in (({"model": str(other)}, "model sha256"), ({"data": data}, "data of")):
            with pytest.raises(ConfigError, match=told), Progress(Console(quiet=True)) as progress:
                evaluate(replace(whole, **change), progress, no_model)

    def test_two_processes_do_not_share_a_folder(self, plan: Plan, model: LanguageModel) -> None:
        def meanwhile(spec: str, config: Config) -> LanguageModel:
            with pytest.raises(QuickstudyError, match="another process"):
                run(plan, model)
            return model

        with Progress(Console(quiet=True)) as progress:
            evaluate(replace(plan, limit=1, methods=["repair"]), progress, meanwhile)

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
    def test_kill_9(self, plan: Plan, model: LanguageModel, whole: Plan) -> None:
        """Killed somewhere: no item is lost, none is done twice, all is as without."""
        start = "from quickstudy.cli import main; main()"
        command = [sys.executable, "-c", start, "eval", *_arguments(plan)]
        process = subprocess.Popen(command, env=os.environ | _environment(), stderr=subprocess.PIPE)
        try:
            _wait(plan.out / "records.jsonl", 12, process)
        finally:
            process.send_signal(signal.SIGKILL)
            _, complaint = process.communicate()
        assert process.returncode == -signal.SIGKILL, complaint
        survived = (plan.out / "records.jsonl").read_bytes().rpartition(b"\n")[0]
        assert len(survived.splitlines()) < 5 * 7
        run(plan, model)
        assert (plan.out / "records.jsonl").read_bytes().startswith(survived)
        assert len(lines(plan)) == 5 * 7
        for ours, theirs in zip(answers(plan), answers(whole), strict=True):
            del ours["draft"], theirs["draft"]  # the other run has probed it
            assert alike(ours, theirs), (ours, theirs)


class TestFaults:
    def test_an_item_that_fails_is_unscored(
        self, plan: Plan, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(self: Majority, item: Any) -> Any:
            raise RuntimeError("out of luck")

        monkeypatch.setattr(Majority, "answer", broken)
        told = run(replace(plan, methods=["majority", "majority+repair"]), model)
        for name in ("majority", "majority+repair"):
            method = told.benchmarks["sealtool"][name]
            assert (method.n, method.unscored, method.accuracy) == (0, 5, None)
            assert method.delta_vs_base is None
        reasons = {r["verdict"]["unscored"] for r in lines(plan) if r["method"] != "base"}
        assert reasons == {"RuntimeError: out of luck"}

    def test_a_request_that_is_too_long_is_unscored(
        self, plan: Plan, model: LanguageModel, tmp_path: Path
    ) -> None:
        data = taught.write_data(tmp_path / "long")
        rows = [taught.row("light " * 1000)]
        (data / "sealtool.json").write_text(json.dumps(rows))
        told = run(replace(plan, data=data, methods=["tt-si"]), model).benchmarks["sealtool"]
        assert told["tt-si"].unscored == told["base"].unscored == 1
        assert "tokens" in lines(plan)[0]["verdict"]["unscored"]

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"benchmarks": ["sealtools"]}, "did you mean sealtool?"),
            ({"methods": ["tt_si"]}, "did you mean tt-si?"),
            ({"samples": None, "methods": ["majority"]}, "add --method tt-si"),
            ({"benchmarks": ["sealtool", "abstain"], "methods": ["sft"]}, "sft on abstain"),
            ({"offset": 5}, "--offset 5 leaves no row"),
            ({"methods": ["tt-d"]}, "teacher"),
        ],
    )
    def test_what_cannot_be_measured_is_told_first(
        self, plan: Plan, change: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(QuickstudyError) as caught, Progress(Console(quiet=True)) as progress:
            evaluate(replace(plan, **change), progress, no_model)
        assert told in str(caught.value)
        assert not (plan.out / "records.jsonl").exists()


class TestMajority:
    def test_it_draws_what_the_seconds_of_tt_si_buy(self, plan: Plan, model: LanguageModel) -> None:
        """It waits until tt-si has practised often enough, and the number is kept."""
        told = run(replace(plan, methods=["tt-si", "majority"], samples=None), model)
        kept = Run.model_validate_json((plan.out / "run.json").read_bytes())
        assert told.samples == kept.samples is not None
        drawn = {len(r["draft"]["samples"]) for r in lines(plan) if r["method"] == "majority"}
        assert drawn == {told.samples}


class TestSummary:
    def test_has_every_field_of_every_method(self, whole: Plan) -> None:
        told = json.loads((whole.out / "summary.json").read_text())
        assert list(told["benchmarks"]) == ["sealtool"]
        assert list(told["benchmarks"]["sealtool"]) == ["base", *METHODS]
        for method in told["benchmarks"]["sealtool"].values():
            assert (method["n"], method["unscored"]) == (4, 1)
            assert sum(method[part]["n"] for part in ("verbatim", "not_verbatim")) == 4
            assert "sealtools_f1_name" in method["official"]
            assert method["seconds"] > 0
        base = told["benchmarks"]["sealtool"]["base"]
        assert base["accuracy"] == 0.5
        assert base["delta_vs_base"]["mean"] == base["delta_vs_base"]["fixed"] == 0
        assert base["errors"]["wrong value"] == 2
        assert told["best_free"]["sealtool"] in ("base", "repair", "majority", "tt-icl")

    def test_tells_what_it_was_made_with(self, whole: Plan) -> None:
        told = json.loads((whole.out / "summary.json").read_text())
        assert told["model"]["name"] == "tiny"
        assert told["model"]["quantisation"] == told["model"]["dtype"] == "float32"
        assert len(told["model"]["sha256"]) == len(told["data"]["sealtool"]["sha256"]) == 64
        assert told["versions"].keys() >= {"python", "quickstudy", "torch", "transformers"}
        assert told["machine"]["cores"] == os.cpu_count()
        assert told["settings"]["tt-si"]["learning"]["rank"] == 2
        assert told["settings"]["tt-si+repair"]["repair"] is True
        assert told["settings"]["tt-si"]["repair"] is False

    def test_an_adapter_trained_once_is_counted_once(
        self, plan: Plan, model: LanguageModel
    ) -> None:
        told = run(replace(plan, methods=["sft", "sft+repair"]), model).benchmarks["sealtool"]
        for name in ("sft", "sft+repair"):
            assert told[name].examples_trained == 3
            assert told[name].gradient_steps == 1
            assert told[name].training_seconds > 0


class TestCommand:
    def test_prints_a_table_a_benchmark(
        self, plan: Plan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small = replace(plan, limit=2, methods=["repair"])
        monkeypatch.setattr(sys, "argv", ["quickstudy", "eval", *_arguments(small), "--limit=2"])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        said = capsys.readouterr().out
        assert "sealtool, tiny" in said
        assert "repair" in said
        assert str(plan.out) in said


def _arguments(plan: Plan) -> list[str]:
    told = [f"--model={plan.model}", f"--data={plan.data}", f"--out={plan.out}"]
    told += [f"--benchmark={name}" for name in plan.benchmarks]
    told += [f"--method={name}" for name in plan.methods]
    told += [f"--set={setting}" for setting in plan.overrides]
    return [*told, f"--samples={plan.samples}"]


def _environment() -> dict[str, str]:
    """The package that is tested, in the other process as well."""
    source = Path(str(sys.modules["quickstudy"].__file__)).parents[1]
    return {"PYTHONPATH": str(source)}


def _wait(path: Path, least: int, process: subprocess.Popen[bytes]) -> None:
    """Until the file has so many lines."""
    for _ in range(6000):
        if path.exists() and path.read_bytes().count(b"\n") >= least:
            return
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    raise AssertionError("it wrote nothing")
