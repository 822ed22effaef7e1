"""Thresholds and margins from drafts: numbers by hand, then the command on a tiny model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy import Config, Improver, RequestError
from quickstudy.awareness import calibrate as calibration
from quickstudy.awareness.calibrate import (
    ALWAYS,
    Observation,
    calibrate,
    left_out,
    observe,
    read_rows,
    tau_by_risk,
    tau_by_trigger_rate,
)
from quickstudy.awareness.reference import Reference, load
from quickstudy.cli import main
from quickstudy.config import AwarenessConfig, DecodingConfig
from quickstudy.model import LanguageModel

CHEAP = settings(deadline=None, max_examples=100)
HI = {"messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"name": "go", "parameters": {"type": "object", "properties": {}}}


class TestTriggerRate:
    @pytest.mark.parametrize(("rate", "practise"), [(0, 0), (0.2, 2), (0.3, 3), (0.34, 3), (1, 10)])
    def test_this_share_practises(self, rate: float, practise: int) -> None:
        certainties = [i / 10 for i in (5, 1, 9, 3, 7, 2, 8, 0, 6, 4)]
        tau = tau_by_trigger_rate(certainties, rate)
        assert sum(c < tau for c in certainties) == practise

    def test_equal_ones_stay_together(self) -> None:
        assert tau_by_trigger_rate([0.1, 0.5, 0.5, 0.5], 0.5) == 0.5

    @CHEAP
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1))
    def test_never_more_than_asked_for(self, certainties: list[float], rate: float) -> None:
        tau = tau_by_trigger_rate(certainties, rate)
        assert sum(c < tau for c in certainties) <= round(rate * len(certainties))
        assert 0 <= tau <= ALWAYS


class TestRisk:
    def test_the_next_request_counts_as_wrong(self) -> None:
        certainties = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
        right = [True, True, True, False, True, False]
        # (wrong + 1) / (sure + 1) from the surest on: 1/2, 1/3, 1/4, 2/5, 2/6, 3/7
        assert tau_by_risk(certainties, right, 0.3) == pytest.approx(0.65)
        assert tau_by_risk(certainties, right, 0.34) == pytest.approx(0.45)
        assert tau_by_risk(certainties, right, 0.5) == 0
        assert tau_by_risk(certainties, right, 0.2) == ALWAYS

    def test_equal_ones_are_sure_together(self) -> None:
        assert tau_by_risk([0.9, 0.9, 0.9, 0.9], [True, True, True, False], 0.3) == ALWAYS

    def test_what_was_not_graded_tells_nothing(self) -> None:
        assert tau_by_risk([0.9, 0.8, 0.7], [True, None, False], 0.5) == pytest.approx(0.8)

    @CHEAP
    @given(
        st.lists(
            st.tuples(st.sampled_from([0, 0.2, 0.5, 1.0]), st.sampled_from([True, False, None])),
            max_size=20,
        ),
        st.floats(0, 1),
    )
    def test_the_promise_holds(self, pairs: list[tuple[float, Any]], risk: float) -> None:
        tau = tau_by_risk([c for c, _ in pairs], [r for _, r in pairs], risk)
        sure = [r for c, r in pairs if c >= tau and r is not None]
        assert (sure.count(False) + 1) / (len(sure) + 1) <= risk or tau == ALWAYS


def seen(margin: float, right: bool | None, kind: Any = "words") -> Observation:
    return Observation(((kind, margin),), {"margin": margin}, None, right)


class TestCalibrate:
    OBSERVED = (
        *(seen(m / 10, True) for m in (3, 5, 7, 9)),
        seen(0.1, False),
        Observation((("tool_name", 0.5),), {"margin": 0.5}, "json", None),
    )

    @staticmethod
    def made(observed: Sequence[Observation], **goal: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return calibrate(observed, model="tiny", config=Config(), **goal)

    def test_known_good_margins_by_kind(self) -> None:
        made = self.made(self.OBSERVED)
        assert (made.requests, made.known_good) == (6, 5)
        assert made.call_formats == {"words": 5, "json": 1}
        assert made.margins["words"].quantiles == (0.3, 0.5, 0.7, 0.9)
        assert made.margins["tool_name"].quantiles == (0.5,)
        assert set(made.thresholds) == {"margin", "reference"}

    def test_thresholds_tell_what_they_did(self) -> None:
        threshold = self.made(self.OBSERVED, trigger_rate=0.5).thresholds["margin"]
        assert threshold.tau == 0.5  # 0.1 and 0.3 are below; the two of 0.5 stay together
        assert threshold.practised == pytest.approx(2 / 6)
        assert (threshold.sure, threshold.wrong_and_sure) == (3, 0)
        by_risk = self.made(self.OBSERVED, risk=0.2).thresholds["margin"]
        assert by_risk.tau == pytest.approx(0.2)
        assert (by_risk.sure, by_risk.wrong_and_sure) == (4, 0)

    def test_a_good_draft_is_compared_with_the_others(self) -> None:
        told = left_out(self.OBSERVED, 1)
        # among the three others' words; 0.1 among all four; a lone tool name among all words
        assert told == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1 / 5, 3 / 5])
        whole = Reference(self.made(self.OBSERVED).margins)
        assert whole.certainty(self.OBSERVED[0].positions, 1) == pytest.approx(2 / 5)

    def test_few_requests_are_warned_of(self) -> None:
        with pytest.warns(UserWarning, match="only 5 known-good requests"):
            calibrate(self.OBSERVED, model="tiny", config=Config())
        many = [seen(i / 20, None) for i in range(20)]
        assert calibrate(many, model="tiny", config=Config()).known_good == 20

    def test_no_right_draft(self) -> None:
        with pytest.raises(RequestError, match="none of the 2 drafts is right"):
            self.made([seen(0.1, False)] * 2)

    def test_a_risk_needs_right_answers(self) -> None:
        with pytest.raises(RequestError, match="add `expected`"):
            self.made([seen(0.1, None)] * 2, risk=0.1)


class TestRows:
    def test_expected_calls_are_read(self) -> None:
        call = {"name": "go", "arguments": {}}
        rows = read_rows(json.dumps([{**HI, "tools": [TOOL], "expected": [call]}, HI]))
        assert rows[0].expected is not None
        assert [c.name for c in rows[0].expected] == ["go"]
        assert rows[1].expected is None

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("", "there is no request"),
            ("{oops}", "row 1: line 1 is no JSON"),
            (json.dumps([HI, {"messages": []}]), "row 2: messages"),
            (json.dumps([{**HI, "expected": "go"}]), "row 1: expected must be a list"),
            (json.dumps([{**HI, "expected": [{}]}]), "row 1: expected"),
            ("[1]", "row 1: expected an object"),
        ],
    )
    def test_bad_ones_are_named(self, text: str, error: str) -> None:
        with pytest.raises(RequestError, match=error):
            read_rows(text)

    def test_other_fields_are_warned_of(self) -> None:
        with pytest.warns(UserWarning, match="fields ignored: model$"):
            read_rows(json.dumps({**HI, "expected": [], "model": "x"}))


@pytest.mark.parametrize(
    ("request_", "same_as"), [({**HI, "tools": [TOOL]}, True), (HI, False)], ids=["tools", "plain"]
)
def test_auto_is_margin_where_there_are_tools(
    tiny: LanguageModel, request_: dict[str, Any], same_as: bool
) -> None:
    config = Config(decoding=DecodingConfig(max_new_tokens=3))
    improver = Improver(tiny, config)
    (row,) = read_rows(json.dumps(request_))
    told = observe(improver.decoder, improver.draft(row.request), None, config).certainties
    assert set(told) == {"margin", "auto"}
    assert (told["auto"] == told["margin"]) is same_as


def test_observes_the_configured_estimator(tiny: LanguageModel) -> None:
    config = Config(
        awareness=AwarenessConfig(estimator="rss-samples", samples=2),
        decoding=DecodingConfig(max_new_tokens=3),
    )
    improver = Improver(tiny, config)
    (row,) = read_rows(json.dumps({**HI, "expected": []}))
    one = observe(improver.decoder, improver.draft(row.request), row.expected, config)
    assert set(one.certainties) == {"margin", "rss-samples"}
    assert one.right is True  # it was to call nothing, and did
    assert [kind for kind, _ in one.positions] == ["words"] * 3


class TestCommand:
    @pytest.fixture
    def model(self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
        def load(model: str, config: Config | None = None) -> Improver:
            return Improver(tiny, config)

        monkeypatch.setattr(Improver, "load", load)
        monkeypatch.setattr("quickstudy.catalog.resolve", lambda *_: None)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        monkeypatch.setattr(calibration, "FEW", 2)
        monkeypatch.setenv("COLUMNS", "200")
        return tiny

    @staticmethod
    def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
        quick = ("--set", "decoding.max_new_tokens=3")
        monkeypatch.setattr("sys.argv", ["quickstudy", "calibrate", *arguments, *quick])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    @pytest.fixture
    def good(self, tmp_path: Path) -> str:
        file = tmp_path / "good.jsonl"
        asked = [{"messages": f"Say {word}", "expected": []} for word in ("a", "b", "c", "d")]
        file.write_text("\n".join(map(json.dumps, asked)))
        return str(file)

    def test_writes_a_file_that_the_estimator_reads(
        self,
        model: LanguageModel,
        good: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        file = tmp_path / "new" / "calibration.json"
        wanted = ["--requests", good, "--out", str(file), "--trigger-rate", "0.5"]
        assert self.run(monkeypatch, *wanted, "--set", "awareness.estimator=reference") == 0
        out = capsys.readouterr().out
        assert "4 of 4 drafts are known to be good" in out
        config = Config(
            awareness=AwarenessConfig(estimator="reference", reference=file),
            decoding=DecodingConfig(max_new_tokens=3),
        )
        made = load("tiny", config)
        assert made.requests == 4
        assert made.margins["words"].n == 12
        tau = made.thresholds["reference"].tau
        told = (
            f"--set awareness.estimator=reference --set awareness.reference={file}"
            f" --set awareness.threshold={tau}"
        )
        assert told in out
        # what is to be typed next works, and the threshold need not be
        episode = Improver(model, config).answer("Say a").episode
        assert episode.certainty is not None
        assert episode.threshold == tau != made.thresholds["margin"].tau
        assert [path.name for path in file.parent.iterdir()] == [file.name]

    def test_a_run_that_fails_leaves_the_file_as_it_was(
        self,
        model: LanguageModel,
        good: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        wrong = {"messages": "Say a", "expected": [{"name": "go", "arguments": {}}]}
        (tmp_path / "wrong.jsonl").write_text(json.dumps(wrong))
        old, new = tmp_path / "old.json", tmp_path / "new.json"
        old.write_text("old")
        for file in (old, new):
            wanted = ["--requests", str(tmp_path / "wrong.jsonl"), "--out", str(file)]
            assert self.run(monkeypatch, *wanted) == 2
            assert "none of the 1 drafts is right" in capsys.readouterr().err
        assert old.read_text() == "old"
        assert {path.name for path in tmp_path.iterdir()} == {"good.jsonl", "wrong.jsonl", old.name}

    def test_a_folder_is_no_file_to_write(
        self,
        model: LanguageModel,
        good: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert self.run(monkeypatch, "--requests", good, "--out", str(tmp_path)) == 2
        assert f"cannot write {tmp_path}: it is no ordinary file" in capsys.readouterr().err

    def test_json(
        self,
        model: LanguageModel,
        good: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        wanted = ["--requests", good, "--out", str(tmp_path / "c.json"), "--risk", "0.5", "--json"]
        assert self.run(monkeypatch, *wanted) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["thresholds"]["margin"] == {
            "tau": 0.0,
            "practised": 0.0,
            "sure": 4,
            "wrong_and_sure": 0,
        }

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (["--risk", "0.1", "--trigger-rate", "0.1"], "exclude each other"),
            (["--risk", "2"], "--risk"),
        ],
    )
    def test_goals_that_cannot_be(
        self,
        model: LanguageModel,
        good: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        error: str,
    ) -> None:
        wanted = ["--requests", good, "--out", str(tmp_path / "c.json"), *arguments]
        assert self.run(monkeypatch, *wanted) == 2
        assert error in capsys.readouterr().err
        assert not (tmp_path / "c.json").exists()
