"""Rows of every benchmark become tasks; with the real data, if it is here, perfect is 1."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from pathlib import Path

import benchmark_rows as rows
import pytest

from quickstudy.errors import DataError
from quickstudy.evals.benchmarks import BENCHMARKS, FILES, abstain, apibank, train
from quickstudy.evals.scoring import score
from quickstudy.evals.task import Task, sample
from quickstudy.types import Message, Reply, ToolCall

NAMES = ("nexusraven", "sealtool", "toolalpaca", "apibank", "apibank_l1", "apibank_l2", "abstain")
every_benchmark = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return rows.write(tmp_path)


def load(name: str, folder: Path) -> list[Task]:
    return BENCHMARKS[name].load(folder)


def perfect(tasks: list[Task]) -> list[Reply]:
    return [Reply("", task.gold) for task in tasks]


class TestAll:
    def test_the_names(self) -> None:
        assert tuple(BENCHMARKS) == NAMES
        assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())

    @every_benchmark
    def test_perfect_is_one(self, name: str, folder: Path) -> None:
        tasks = load(name, folder)
        assert tasks
        verdicts = [score(task, reply) for task, reply in zip(tasks, perfect(tasks), strict=True)]
        assert {verdict.correct for verdict in verdicts if not verdict.unscored} == {True}

    @every_benchmark
    def test_ids_name_rows(self, name: str, folder: Path) -> None:
        tasks = load(name, folder)
        assert len({task.id for task in tasks}) == len(tasks)

    @every_benchmark
    def test_a_bad_row_is_named(self, name: str, folder: Path) -> None:
        file = BENCHMARKS[name].files[0]
        content = json.loads((folder / file.path).read_text())
        content.insert(1, {"query": "no tools"})
        (folder / file.path).write_text(json.dumps(content))
        with pytest.raises(DataError, match=rf"{file.path}, row 1: \w+"):
            load(name, folder)

    @every_benchmark
    def test_a_missing_file_is_named(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"No such file.*name the folder with --data"):
            load(name, tmp_path)

    @pytest.mark.parametrize("text", ["{", "[1", '{"rows": []}', "[" * 100_000])
    def test_what_is_no_list_of_rows(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "sealtool.json").write_text(text)
        with pytest.raises(DataError, match=r"sealtool\.json is no"):
            load("sealtool", tmp_path)


class TestSealTool:
    def test_a_call_in_the_other_spelling_is_read(self, folder: Path) -> None:
        first, second = load("sealtool", folder)
        assert first.id == "sealtool-0"
        assert first.gold == (ToolCall("getSeaTemperature", {"place": "Bergen", "depth": "2.5"}),)
        assert first.request.tools[0].properties["depth"]["type"] == "number"
        assert first.request.tools[0].required == {"place"}
        assert first.verbatim
        assert second.gold == (ToolCall("listHarbours", {}),)
        typed = Reply("", (ToolCall("getSeaTemperature", {"place": "Bergen", "depth": 2.5}),))
        assert score(first, typed).correct

    def test_both_official_scores(self, folder: Path) -> None:
        tasks = load("sealtool", folder)
        told = BENCHMARKS["sealtool"].official(tasks, perfect(tasks))
        assert told["sealtools_f1_argument"] == 1
        assert told["hammer_f1_argument"] == 3 / 2  # it counts the call without arguments wrongly


class TestToolAlpaca:
    def test_components_is_no_tool(self, folder: Path) -> None:
        for task in load("toolalpaca", folder):
            assert [tool.name for tool in task.request.tools] == ["wind_get"]

    def test_credentials_that_nobody_knows_are_left_out(self, folder: Path) -> None:
        unknown, told, _ = load("toolalpaca", folder)
        assert unknown.ignored == {"access_key"}
        assert unknown.verbatim
        said = tuple(ToolCall("wind_get", {"place": place}) for place in ("Oslo", "Bergen"))
        assert score(unknown, Reply("", said)).correct
        assert told.ignored == frozenset()
        assert not score(told, Reply("", said[:1])).correct

    def test_a_credential_of_the_documentation_is_known(self) -> None:
        from quickstudy.evals.benchmarks import toolalpaca
        from quickstudy.evals.task import parse

        row = {**rows.TOOLALPACA[0], "query": "Is it windy? See the docs."}
        documented = {**rows.WIND, "description": "Demo key: 3f2a"}
        task = parse({**row, "tools": [documented]}, 0)
        assert toolalpaca.without_credentials(task).ignored == frozenset()

    def test_a_gold_tool_that_is_not_listed_is_unscored(self, folder: Path) -> None:
        task = load("toolalpaca", folder)[2]
        assert task.ungradable == "the gold tool fog_get is not listed"
        assert score(task, Reply("", task.gold)).unscored == task.ungradable

    def test_the_official_score_takes_all_rows(self, folder: Path) -> None:
        tasks = load("toolalpaca", folder)
        told = BENCHMARKS["toolalpaca"].official(tasks, [Reply("")] * 3)
        assert told["hammer_f1_name"] == 0
        told = BENCHMARKS["toolalpaca"].official(tasks, perfect(tasks))
        assert told["hammer_recall_name"] == 1


class TestApiBank:
    def test_a_dialogue(self, folder: Path) -> None:
        task = load("apibank_l1", folder)[0]
        assert task.request.messages == (
            Message("user", "I am Ada. Book me a table, I want soup and fish."),
            Message("assistant", "I look you up.", (ToolCall("FindGuest", {}),), ("call_2_0",)),
            Message("tool", "{'guest_id': 7}", tool_call_id="call_2_0"),
            Message("assistant", "I book it now."),
        )

    def test_a_turn_that_held_the_ending_alone_is_dropped(self, folder: Path) -> None:
        task = load("apibank_l1", folder)[1]
        assert task.request.messages == (Message("user", "Book a table for guest 8."),)

    @pytest.mark.parametrize("last", ["user", "tool"])
    def test_the_ending_is_stripped_from_any_turn(self, last: str) -> None:
        query = [
            {"role": "user", "content": "Hi."},
            {"role": last, "content": "Yes.\nGenerate API Request: "},
        ]
        row = apibank.conversation({"query": query})
        assert row["query"][1]["content"] == "Yes."

    def test_results_belong_to_their_calls(self) -> None:
        call = '{"name": "f", "arguments": {"a": 1}}'
        query = [
            {"role": "user", "content": "Go."},
            {"role": "assistant", "content": f"```json\n[{call}, {call}]\n```"},
            {"role": "tool", "content": "one"},
            {"role": "tool", "content": "two"},
            {"role": "assistant", "content": "Said plainly, with `code`."},
            {"role": "user", "content": "Thanks."},
        ]
        messages = apibank.conversation({"query": query})["query"]
        ids = [call["id"] for call in messages[1]["tool_calls"]]
        assert len(set(ids)) == 2
        assert [messages[i]["tool_call_id"] for i in (2, 3)] == ids
        assert messages[4] == {"role": "assistant", "content": "Said plainly, with `code`."}

    def test_lists_as_text(self, folder: Path) -> None:
        task = load("apibank_l1", folder)[0]
        said = ToolCall("BookTable", {"guest_id": 7, "dishes": ["soup", "fish"]})
        assert score(task, Reply("", (said,))).correct

    def test_an_argument_that_the_schema_does_not_know_is_unscored(self, folder: Path) -> None:
        task = load("apibank_l1", folder)[1]
        assert task.ungradable is not None
        assert "has no argument 'people'" in task.ungradable

    def test_both_levels(self, folder: Path) -> None:
        ids = [task.id for task in load("apibank", folder)]
        assert ids == ["apibank_l1-0", "apibank_l1-1", "apibank_l2-0", "apibank_l2-1"]


class TestNexusRaven:
    def test_null_is_an_argument_left_out(self, folder: Path) -> None:
        plain, alpaca = load("nexusraven", folder)
        assert plain.request.tools[0].required == {"domain"}
        assert alpaca.request.tools[0].required == {"topic"}
        for task in (plain, alpaca):
            stated = {k: v for k, v in task.gold[0].arguments.items() if v is not None}
            assert score(task, Reply("", (ToolCall(task.gold[0].name, stated),))).correct

    def test_the_official_score_by_source(self, folder: Path) -> None:
        tasks = load("nexusraven", folder)
        told = BENCHMARKS["nexusraven"].official(tasks, perfect(tasks))
        assert told == {
            "nexusraven_accuracy": 1,
            "nexusraven_accuracy_virustotal": 1,
            "nexusraven_accuracy_toolalpaca": 1,
        }


class TestAbstain:
    def test_the_second_hundred_without_its_gold_tool(self, folder: Path) -> None:
        tasks = load("abstain", folder)
        assert [task.id for task in tasks] == [f"abstain-dev-easy-{n}" for n in range(100, 200)]
        for task in tasks:
            assert task.gold == ()
            assert [tool.name for tool in task.request.tools] == ["getTide"]

    def test_any_call_is_wrong(self, folder: Path) -> None:
        task = load("abstain", folder)[0]
        call = ToolCall("getTide", {"place": "Oslo"})
        assert [f.kind for f in score(task, Reply("", (call,))).faults] == ["extra call"]
        assert score(task, Reply("No tool fits.")).correct

    def test_all_gold_tools_go(self, folder: Path) -> None:
        several = train.load(folder)[-1]
        assert len(several.gold) == 2
        assert [t.name for t in abstain.without_gold(several).request.tools] == ["getTide"]


class TestTrain:
    def test_single_calls(self, folder: Path) -> None:
        assert len(train.load(folder)) == 206
        assert len(train.single(folder)) == 203
        assert {len(task.gold) for task in train.single(folder)} == {1}


DATA = Path(os.environ.get("BENCHMARK_DATA", "no folder is named"))


UNSCORED = {"toolalpaca": 8, "apibank": 14, "apibank_l1": 8, "apibank_l2": 6, "nexusraven": 1}
IGNORED = {"toolalpaca": 34}
VERBATIM = {"sealtool": 0.898, "nexusraven": 0.594, "apibank_l1": 0.589, "apibank_l2": 0.386}
HAMMER = {"sealtool": 515 / 492, "toolalpaca": 1.0704, "apibank": 1.0061}


@pytest.mark.skipif(not DATA.is_dir(), reason="BENCHMARK_DATA names no folder of benchmark data")
class TestRealData:
    @every_benchmark
    def test_perfect_is_exactly_one(self, name: str) -> None:
        tasks = load(name, DATA)
        assert len(tasks) == BENCHMARKS[name].rows
        verdicts = [score(task, reply) for task, reply in zip(tasks, perfect(tasks), strict=True)]
        graded = [verdict for verdict in verdicts if not verdict.unscored]
        assert sum(verdict.correct for verdict in graded) / len(graded) == 1.0
        assert len(tasks) - len(graded) == UNSCORED.get(name, 0)
        assert sum(bool(task.ignored) for task in tasks) == IGNORED.get(name, 0)

    @pytest.mark.parametrize("name", VERBATIM)
    def test_how_often_the_request_says_all_values(self, name: str) -> None:
        tasks = load(name, DATA)
        share = sum(task.verbatim for task in tasks) / len(tasks)
        assert share == pytest.approx(VERBATIM[name], abs=5e-4)

    @pytest.mark.parametrize("name", HAMMER)
    def test_hammers_score_of_perfect_predictions(self, name: str) -> None:
        tasks = load(name, DATA)
        told = BENCHMARKS[name].official(tasks, perfect(tasks))
        assert told["hammer_f1_argument"] == pytest.approx(HAMMER[name], abs=5e-5)

    def test_nexusravens_score_of_perfect_predictions(self) -> None:
        tasks = load("nexusraven", DATA)
        told = BENCHMARKS["nexusraven"].official(tasks, perfect(tasks))
        assert len(told) == 5
        assert set(told.values()) == {1.0}

    def test_queries_that_stand_twice(self) -> None:
        tasks = load("apibank", DATA)
        assert len(tasks) - len({task.query for task in tasks}) == 26

    def test_fresh_rows_ask_nothing_that_was_asked(self) -> None:
        tasks = load("apibank", DATA)
        used, fresh = sample(tasks, 100, 0), sample(tasks, None, 0, offset=100)
        assert not {task.query for task in used} & {task.query for task in fresh}
        assert len(fresh) > 400

    def test_the_conversations_of_apibank(self) -> None:
        ends = Counter(task.request.messages[-1].role for task in load("apibank", DATA))
        assert ends == {"assistant": 341, "user": 135, "tool": 50}
        for task in load("apibank", DATA):
            roles = [message.role for message in task.request.messages]
            assert ("assistant", "assistant") not in itertools.pairwise(roles)
            assert "Generate API Request" not in task.request.user_text

    def test_every_file_is_the_one(self) -> None:
        from quickstudy.evals.data import check

        assert {checked.state for checked in check(DATA, FILES)} == {"good"}
