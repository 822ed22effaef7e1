"""Margins against those of known-good requests; the formulas worked out by hand."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from quickstudy import Config, ConfigError
from quickstudy.awareness.kinds import Kind
from quickstudy.awareness.reference import (
    KEPT,
    Calibration,
    Margins,
    Reference,
    Threshold,
    deviation,
    load,
)
from quickstudy.config import AwarenessConfig, DecodingConfig
from quickstudy.decoding import Choice, Decoder, Draft, Generation
from quickstudy.model import LanguageModel
from quickstudy.types import Reply, Request

CHEAP = hypothesis_settings(deadline=None, max_examples=100)
NINE: list[float] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
REFERENCE = Reference.of({"argument_value": NINE, "structure": [0.99]})


class TestPValue:
    @pytest.mark.parametrize(
        ("margin", "p"),
        [(0.05, 0.1), (0.1, 0.2), (0.35, 0.4), (0.9, 1.0), (1.0, 1.0)],
    )
    def test_is_the_rank_among_ten(self, margin: float, p: float) -> None:
        assert REFERENCE.p_value("argument_value", margin) == pytest.approx(p)

    def test_is_of_its_own_kind(self) -> None:
        assert REFERENCE.p_value("structure", 0.95) == pytest.approx(1 / 2)

    def test_a_kind_without_margins_is_compared_with_all(self) -> None:
        assert REFERENCE.p_value("words", 0.95) == pytest.approx((1 + 9) / (1 + 10))

    def test_without_any_reference_nothing_is_rare(self) -> None:
        assert Reference({}).p_value("words", 0.0) == 1

    def test_margins_next_to_one_are_alike(self) -> None:
        one = Reference.of({"words": [1.0] * 9})
        assert one.p_value("words", 1 - 1e-9) == 1


class TestCertainty:
    @pytest.mark.parametrize(
        ("margins", "deviations", "c"),
        [
            ([], 2, 1.0),
            ([0.05], 1, 0.1),
            ([0.05], 2, 0.1),  # one position can deviate once
            ([0.05, 1.0], 1, 1 - 0.9**2),
            ([0.05, 0.1], 2, 0.2**2),  # both at most 0.2
            ([0.05, 0.1, 0.9], 2, 3 * 0.2**2 * 0.8 + 0.2**3),
            ([0.9, 0.9, 0.9], 2, 1.0),
        ],
    )
    def test_worked_out_by_hand(self, margins: list[float], deviations: int, c: float) -> None:
        told: list[tuple[Kind, float]] = [("argument_value", margin) for margin in margins]
        assert REFERENCE.certainty(told, deviations) == pytest.approx(c)

    def test_one_deviation_of_several_wanted_says_little(self) -> None:
        sure: list[tuple[Kind, float]] = [("argument_value", 0.9)] * 8
        once = [("argument_value", 0.05), *sure]
        twice = [("argument_value", 0.05), *once]
        assert REFERENCE.certainty(once, 2) == 1
        assert REFERENCE.certainty(twice, 2) < 0.3

    @pytest.mark.parametrize("length", [3, 40])
    def test_is_uniform_on_known_good_drafts_however_long(self, length: int) -> None:
        """The point of the formula: a threshold is the share of good requests that practise."""
        draw = random.Random(length)
        known = Reference.of({"words": [draw.random() for _ in range(3000)]})
        drafts = [[("words", draw.random()) for _ in range(length)] for _ in range(400)]
        told = [known.certainty(draft, 2) for draft in drafts]  # type: ignore[arg-type]
        for share in (0.1, 0.3, 0.5):
            assert sum(c < share for c in told) / 400 == pytest.approx(share, abs=0.08)

    @CHEAP
    @given(
        st.lists(st.tuples(st.sampled_from(["words", "structure"]), st.floats(0, 1)), max_size=9),
        st.lists(st.floats(0, 1), max_size=9),
        st.integers(1, 5),
    )
    def test_is_between_nothing_and_one(
        self, told: list[tuple[Kind, float]], margins: list[float], deviations: int
    ) -> None:
        assert 0 <= Reference.of({"words": margins}).certainty(told, deviations) <= 1

    @CHEAP
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(1, 3))
    def test_a_smaller_margin_never_makes_surer(self, margins: list[float], m: int) -> None:
        told: list[tuple[Kind, float]] = [("argument_value", margin) for margin in margins]
        less: list[tuple[Kind, float]] = [(told[0][0], told[0][1] / 2), *told[1:]]
        assert REFERENCE.certainty(less, m) <= REFERENCE.certainty(told, m)


def test_many_margins_are_told_by_quantiles() -> None:
    margins = [i / 10_000 for i in range(10_000)]
    kept = Margins.of(random.Random(0).sample(margins, len(margins)))
    assert kept.n == 10_000
    assert len(kept.quantiles) == KEPT
    assert (kept.quantiles[0], kept.quantiles[-1]) == (0.0, 0.9999)
    for margin in (0.0, 0.01, 0.5, 0.999, 1.0):
        expected = sum(known <= margin for known in margins)
        assert kept.at_most(margin) == pytest.approx(expected, abs=20)


THRESHOLD = Threshold(tau=0.5, practised=0.3, sure=6, wrong_and_sure=None)


def made(**changed: Any) -> Calibration:
    return Calibration(
        **{
            "quickstudy": "0.1.0",
            "model": "tiny",
            "constrained": True,
            "call_formats": {"json": 9},
            "requests": 9,
            "known_good": 9,
            "deviations": 2,
            "margins": {"argument_value": Margins.of(NINE)},
            "thresholds": {
                "margin": THRESHOLD,
                "reference": THRESHOLD.model_copy(update={"tau": 0.125}),
            },
            **changed,
        }
    )


def asking(path: Path | None, constrained: bool = True) -> Config:
    return Config(
        awareness=AwarenessConfig(estimator="reference", reference=path),
        decoding=DecodingConfig(constrained=constrained),
    )


class TestFile:
    def test_reads_what_was_written(self, tmp_path: Path) -> None:
        file = tmp_path / "calibration.json"
        file.write_text(made().dumps())
        assert load("tiny", asking(file)) == made()
        assert json.loads(file.read_text())["margins"]["argument_value"]["n"] == 9

    def test_a_new_file_is_read_anew(self, tmp_path: Path) -> None:
        file = tmp_path / "calibration.json"
        file.write_text(made().dumps())
        load("tiny", asking(file))
        file.write_text(made(requests=10).dumps())
        os.utime(file, ns=(1, 1))
        assert load("tiny", asking(file)).requests == 10

    @pytest.mark.parametrize(
        ("text", "model", "constrained", "error"),
        [
            (made().dumps(), "other", True, "made for tiny, and the model is other"),
            (made().dumps(), "tiny", False, "decoding.constrained=true"),
            (made(deviations=3).dumps(), "tiny", True, "made with awareness.deviations=3"),
            (
                made().dumps().replace('"reference":', '"other":'),
                "tiny",
                True,
                "no calibration file",
            ),
            ("", "tiny", True, "no calibration file"),
            ("{}", "tiny", True, "no calibration file"),
            ("[" * 100_000, "tiny", True, "no calibration file"),
            (made().dumps().replace('"version": 1', '"version": 2'), "tiny", True, "this version"),
            (made().dumps().replace("0.3", "NaN"), "tiny", True, "no calibration file"),
        ],
    )
    def test_refuses_what_is_not_meant_for_it(
        self, tmp_path: Path, text: str, model: str, constrained: bool, error: str
    ) -> None:
        file = tmp_path / "calibration.json"
        file.write_text(text)
        with pytest.raises(ConfigError, match=error) as caught:
            load(model, asking(file, constrained))
        assert f"quickstudy calibrate --requests good.jsonl --model {model}" in str(caught.value)

    def test_says_how_to_make_a_missing_one(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"there is no file .*quickstudy calibrate"):
            load("tiny", asking(tmp_path / "none.json"))
        with pytest.raises(ConfigError, match=r"awareness.reference=calibration\.json"):
            load("tiny", asking(None))
        with pytest.raises(ConfigError, match="cannot read"):
            load("tiny", asking(tmp_path))


def drafted(tiny: LanguageModel, text: str, margins: dict[int, float]) -> Draft:
    ids = tuple(tiny.encode(text))
    choices = tuple(
        Choice(i, ids[i], math.log((1 + m) / 2), 65, math.log(max(1e-9, (1 - m) / 2)))
        for i, m in margins.items()
    )
    context = tiny.prefill(Request.parse("x"))
    return Draft(context, Generation(ids, text, choices, True), None, Reply(text), None, {})


class TestDeviation:
    def test_shows_the_position_that_deviates_most(self, tiny: LanguageModel) -> None:
        text = '[{"name": "f", "arguments": {"x": "abcdef"}}]'
        place = text.index("abc")
        # 0.9 is less than structure's only margin: rarer in its kind than 0.3 among the values
        draft = drafted(tiny, text, {1: 0.9, place: 0.3, place + 1: 0.8})
        known = Reference.of({"argument_value": NINE, "structure": [0.99] * 9})
        certainty = deviation(Decoder(tiny), draft, known, 1)
        assert certainty.value == pytest.approx(1 - 0.9**3)
        assert certainty.candidates[0].text == "[{"
        assert deviation(Decoder(tiny), draft, known, 2).value == pytest.approx(
            3 * 0.4**2 * 0.6 + 0.4**3
        )

    def test_a_draft_without_choices_is_certain(self, tiny: LanguageModel) -> None:
        certainty = deviation(Decoder(tiny), drafted(tiny, "x", {}), REFERENCE, 2)
        assert (certainty.value, certainty.candidates) == (1.0, ())
