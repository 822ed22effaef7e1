"""The demonstration's rows are right, and it grades, writes and sums up what it ran."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from quickstudy import toolcalls
from quickstudy.config import Config, DecodingConfig
from quickstudy.errors import QuickstudyError
from quickstudy.evals import demo
from quickstudy.evals.task import Task
from quickstudy.grounding.ground import Status, ground
from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.types import Answer, Episode, Reply, ToolCall

TASKS = demo.tasks()
CALLING = [item for item in TASKS if item.gold]


def answered(item: Task, draft: tuple[ToolCall, ...], final: tuple[ToolCall, ...]) -> Answer:
    episode = Episode("tt-si", 0.5, 0.9, True, None, Reply("", draft), seconds={"draft": 1.5})
    return Answer("", final, episode, item.request.id)


class TestRows:
    def test_are_twelve_and_two_of_them_want_no_call(self) -> None:
        assert len(TASKS) == 12
        assert len(TASKS) - len(CALLING) == 2

    def test_ids_are_names_of_their_own(self) -> None:
        ids = [item.request.id for item in TASKS]
        assert len(set(ids)) == len(ids)
        assert all(isinstance(id, str) for id in ids)

    @pytest.mark.parametrize("item", CALLING, ids=lambda item: item.request.id)
    def test_gold_calls_are_valid(self, item: Task) -> None:
        assert [toolcalls.problem(call, item.request.tools) for call in item.gold] == [None]

    @pytest.mark.parametrize("item", CALLING, ids=lambda item: item.request.id)
    def test_gold_values_stand_in_the_request(self, item: Task) -> None:
        (call,) = item.gold
        tool = item.request.tool(call.name)
        assert tool is not None
        for name, value in call.arguments.items():
            found = ground(value, tool.properties[name], item.request.user_text)
            assert found.status is Status.STATED

    @pytest.mark.parametrize("item", TASKS, ids=lambda item: item.request.id)
    def test_there_is_a_choice_of_tools(self, item: Task) -> None:
        assert len(item.request.tools) >= 2


class TestGrading:
    ITEM = CALLING[0]

    def test_draft_and_answer_are_graded_each(self) -> None:
        line = demo.graded(self.ITEM, answered(self.ITEM, (), self.ITEM.gold))
        assert (line["draft_correct"], line["correct"]) == (False, True)
        assert line["expected"] == [call.to_json() for call in self.ITEM.gold]
        assert line["request"] == self.ITEM.request.messages[-1].content
        assert line["id"] == self.ITEM.request.id

    def test_where_no_call_is_wanted_any_call_is_wrong(self) -> None:
        item = next(item for item in TASKS if not item.gold)
        call = ToolCall(item.request.tools[0].name, {})
        line = demo.graded(item, answered(item, (), (call,)))
        assert (line["draft_correct"], line["correct"]) == (True, False)

    def test_totals_count_what_was_fixed_and_broken(self) -> None:
        gold = self.ITEM.gold
        pairs = [((), gold), ((), gold), (gold, ()), (gold, gold), ((), ())]
        lines = [demo.graded(self.ITEM, answered(self.ITEM, *pair)) for pair in pairs]
        told = demo.totals(lines)
        assert "5 requests, 5 practised: 2 drafts right, 3 answers right" in told
        assert "(2 fixed, 1 broken) in 8 s" in told


def test_run_writes_a_line_each_as_it_goes(tiny: LanguageModel, tmp_path: Path) -> None:
    improver = Improver(tiny, Config(method="base", decoding=DecodingConfig(max_new_tokens=2)))
    out = tmp_path / "a" / "b"
    written: list[int] = []

    def track(items: Sequence[Task]) -> Iterator[Task]:
        for item in items:
            yield item
            written.append(len((out / "episodes.jsonl").read_text().splitlines()))

    lines = demo.run(improver, out, track)
    assert written == list(range(1, 13))
    text = (out / "episodes.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == json.loads(json.dumps(lines))
    assert [line["id"] for line in lines] == [item.request.id for item in TASKS]
    assert all(line["episode"]["method"] == "base" for line in lines)


@pytest.fixture
def improver(tiny: LanguageModel) -> Improver:
    return Improver(tiny, Config(method="base", decoding=DecodingConfig(max_new_tokens=2)))


class TestFaults:
    def test_a_disk_that_fills_leaves_whole_lines(self, improver: Improver, tmp_path: Path) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            with pytest.raises(QuickstudyError, match=r"cannot write .*jsonl: File too large"):
                demo.run(improver, tmp_path, iter)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
        assert 0 < len(lines) < 12
        assert [json.loads(line)["id"] for line in lines] == [t.request.id for t in TASKS][
            : len(lines)
        ]

    def test_ctrl_c_keeps_what_is_finished(self, improver: Improver, tmp_path: Path) -> None:
        def stop(items: Sequence[Task]) -> Iterator[Task]:
            yield from items[:3]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            demo.run(improver, tmp_path, stop)
        assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 3

    def test_an_earlier_report_does_not_outlive_its_episodes(
        self, improver: Improver, tmp_path: Path
    ) -> None:
        (tmp_path / "report.html").write_text("of another run")
        (tmp_path / "episodes.jsonl").write_text("of another run")
        demo.prepare(tmp_path)
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("episodes.jsonl", "")]

    @pytest.mark.parametrize("name", ["file", "file/folder", "taken"])
    def test_a_folder_that_cannot_be_written(
        self, improver: Improver, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "file").write_text("")
        (tmp_path / "taken" / "report.html").mkdir(parents=True)
        with pytest.raises(QuickstudyError, match=rf"cannot write to \S+{name}: .*--out"):
            demo.run(improver, tmp_path / name, iter)
