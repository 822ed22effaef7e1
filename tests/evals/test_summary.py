"""Accuracies and gains counted by hand from records made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from quickstudy.evals.benchmarks import BENCHMARKS
from quickstudy.evals.records import DataFacts, Fault, ModelFacts, Record, Run, Said, Verdict
from quickstudy.evals.summary import best_free, share, summarise
from quickstudy.evals.task import Task, parse
from quickstudy.methods import RECIPES

ROW = {"query": "Go", "tools": [], "answers": []}
WRONG = Fault(kind="wrong value", explanation="40")


def record(number: int, method: str, correct: bool | None, **fields: Any) -> Record:
    told: dict[str, Any] = {
        "benchmark": "sealtool",
        "id": f"r{number}",
        "place": number,
        "query": f"q{number}",
        "verbatim": number % 2 == 0,
        "method": method,
        "request": "Go",
        "gold": (),
        "answer": Said(),
        "verdict": Verdict(
            correct=correct,
            unscored="no tool" if correct is None else None,
            errors=(WRONG, WRONG) if correct is False else (),
        ),
        "seconds": {"draft": 1.0, "answer": 0.5},
    }
    return Record(**{**told, **fields})


def records(method: str, right: Sequence[bool | None], **fields: Any) -> list[Record]:
    return [record(number, method, one, **fields) for number, one in enumerate(right)]


def summary(*listed: Record, **run: Any) -> Any:
    methods = dict.fromkeys(one.method for one in listed)
    made = Run(
        model=ModelFacts(name="m", quantisation=None, sha256=None, licence=None, dtype="float32"),
        seed=0,
        settings={method: {} for method in methods},
        data={"sealtool": DataFacts(sha256="", rows=6)},
        versions={},
        machine={},
        **run,
    )
    tasks: dict[str, Task] = {one.id: parse({**ROW, "id": one.id}, 0) for one in listed}
    return summarise(made, listed, {"sealtool": tasks}, BENCHMARKS)


BASE = [True, False, False, True, None, False]


class TestCounts:
    def test_unscored_is_not_wrong(self) -> None:
        told = summary(*records("base", BASE)).benchmarks["sealtool"]["base"]
        assert (told.n, told.unscored, told.accuracy) == (5, 1, 0.4)
        assert told.ci95[0] < 0.4 < told.ci95[1]

    def test_an_item_has_an_error_of_a_kind_once(self) -> None:
        told = summary(*records("base", BASE)).benchmarks["sealtool"]["base"]
        assert told.errors["wrong value"] == 3
        assert told.errors["extra call"] == 0
        assert len(told.errors) == 7

    def test_verbatim_and_not(self) -> None:
        told = summary(*records("base", BASE)).benchmarks["sealtool"]["base"]
        assert (told.verbatim.n, told.verbatim.accuracy) == (2, 0.5)
        assert (told.not_verbatim.n, told.not_verbatim.accuracy) == (3, pytest.approx(1 / 3))

    def test_nothing_graded(self) -> None:
        told = summary(*records("base", [None, None])).benchmarks["sealtool"]["base"]
        assert (told.n, told.accuracy, told.ci95, told.delta_vs_base) == (0, None, None, None)
        assert share([]).accuracy is None

    def test_costs(self) -> None:
        spent = records("tt-si", [True, False], triggered=True, examples_trained=2)
        spent[1] = spent[1].model_copy(
            update={"triggered": False, "gradient_steps": 4, "seconds": {"draft": 3.0}}
        )
        spent = [r.model_copy(update={"peak_rss_mb": 100.0 + r.place}) for r in spent]
        told = summary(*spent).benchmarks["sealtool"]["tt-si"]
        assert (told.trigger_rate, told.examples_trained, told.gradient_steps) == (0.5, 4, 4)
        assert (told.seconds, told.seconds_median) == (2.25, 2.25)
        assert told.seconds_by_stage == {"draft": 2.0, "answer": 0.25}
        assert told.peak_rss_mb == 101.0

    def test_one_adapter_is_counted_once(self) -> None:
        trained = {"sealtool/sft": {"examples": 9, "gradient_steps": 3, "seconds": 7.0}}
        told = summary(*records("sft", [True]), *records("sft+repair", [True]), trained=trained)
        for method in told.benchmarks["sealtool"].values():
            counts = (method.examples_trained, method.gradient_steps, method.training_seconds)
            assert counts == (9, 3, 7.0)


class TestGains:
    AFTER = (True, True, True, False, True, False)

    def test_are_paired_by_item(self) -> None:
        listed = [*records("base", BASE), *reversed(records("tt-si", self.AFTER))]
        told = summary(*listed).benchmarks["sealtool"]
        gain = told["tt-si"].delta_vs_base
        assert (gain.fixed, gain.broken, gain.mean) == (2, 1, pytest.approx(0.2))
        assert gain.mcnemar_p == 1.0
        assert told["base"].delta_vs_base.mean == 0

    def test_are_over_items_that_both_have(self) -> None:
        listed = [*records("base", BASE), *records("tt-si", self.AFTER[:2])]
        gain = summary(*listed).benchmarks["sealtool"]["tt-si"].delta_vs_base
        assert (gain.fixed, gain.broken, gain.mean) == (1, 0, 0.5)

    def test_without_base_there_is_none(self) -> None:
        assert (
            summary(*records("tt-si", BASE)).benchmarks["sealtool"]["tt-si"].delta_vs_base is None
        )

    def test_rows_of_one_query_are_drawn_together(self) -> None:
        apart = summary(*records("base", BASE)).benchmarks["sealtool"]["base"]
        one = summary(*records("base", BASE, query="q")).benchmarks["sealtool"]["base"]
        assert one.ci95 == (0.4, 0.4) != apart.ci95

    def test_over_the_best_of_what_is_free(self) -> None:
        listed = [
            *records("base", BASE),
            *records("repair", [True, True, False, True, None, False]),
            *records("tt-si", self.AFTER),
        ]
        told = summary(*listed)
        assert told.best_free == {"sealtool": "repair"}
        gain = told.benchmarks["sealtool"]["tt-si"].delta_vs_best_free
        assert (gain.fixed, gain.broken, gain.mean) == (1, 1, 0)


class TestBestFree:
    def test_needs_no_training(self) -> None:
        free = {name for name, recipe in RECIPES.items() if recipe.free}
        assert free == {
            "base",
            "base-unconstrained",
            "repair",
            "majority",
            "reconsider",
            "icl",
            "tt-icl",
        }
        trained = {
            "tt-si": {"a": record(0, "tt-si", True)},
            "base": {"a": record(0, "base", False)},
        }
        assert best_free(trained) == "base"
        assert best_free({"tt-si": trained["tt-si"]}) is None

    def test_of_equals_takes_less_time(self) -> None:
        slow, fast = record(0, "icl", True), record(0, "majority+repair", True, seconds={"a": 0.1})
        assert best_free({"icl": {"a": slow}, "majority+repair": {"a": fast}}) == "majority+repair"
