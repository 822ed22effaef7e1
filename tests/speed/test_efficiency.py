"""A step's time is the difference of medians over all rounds, and its interval theirs."""

from __future__ import annotations

import json
from typing import Any

from quickstudy.speed.efficiency import efficiency, limits_of
from quickstudy.speed.found import Found
from quickstudy.speed.limits import STEP_SHAPE
from quickstudy.speed.records import Record

MACHINE: Record = {
    "row": "machine",
    "variant": "",
    "machine": {"dtype": "bfloat16"},
    "settings": {"augmentation": {"examples": 2}},
}


def product(rate: float, shape: tuple[int, ...], dtype: str = "bfloat16") -> Record:
    told = {"row": "limits", "variant": f"product {dtype}", "rate": rate, "shape": shape}
    return dict(json.loads(json.dumps(told)))


def found(
    few: list[float], many: list[float], bank: int = 1, small: tuple[int, ...] = STEP_SHAPE
) -> Found:
    records = [MACHINE, product(100.0, (9, 9, 9)), product(40.0, small)]
    records.append(product(80.0, STEP_SHAPE, "float32"))
    for variant, steps, all_seconds in (("few", 2, few), ("many", 6, many)):
        for repeat, seconds in enumerate(all_seconds):
            told: dict[str, Any] = {"prefix": "short", "K": 2, "B": bank, "repeat": repeat}
            told |= {"seconds": seconds, "steps": steps, "flops_step": 20.0}
            records.append({"row": "step", "variant": variant, **told})
    return Found(records)


def test_a_round_in_which_few_took_longer_counts() -> None:
    # medians 2 and 6: a step of 1 s. The rounds one by one: -0.5, 1, 1.75 (median of the good 1.4)
    told = efficiency(found([6.0, 2.0, 1.0], [4.0, 6.0, 8.0]))["short"]["usual"]
    assert told["seconds"] == 1
    assert told["median"] == 0.2
    assert told["n"] == 3
    assert told["of_products_at_this_size"] == 0.5
    assert told["low"] is told["high"] is None  # too few rounds


def test_interval_holds_the_median() -> None:
    told = efficiency(found([1.0, 2.0, 3.0] * 3, [5.0, 6.0, 8.0] * 3))["short"]["usual"]
    assert told["low"] < told["median"] == 0.2 <= told["high"]
    noisy = efficiency(found([6.0, 2.0, 1.0] * 2, [4.0, 6.0, 8.0] * 2))["short"]["usual"]
    assert noisy["high"] is None  # the step may have taken no time


def test_interval_needs_six_rounds() -> None:
    five, six = (efficiency(found([1.0] * n, [5.0] * n))["short"]["usual"] for n in (5, 6))
    assert (five["low"], five["high"]) == (None, None)
    assert (six["low"], six["high"]) == (0.2, 0.2)


def test_usual_is_the_number_of_examples_of_the_settings() -> None:
    def usual(examples: int) -> Any:
        met = found([2.0], [6.0])  # K = 2: a step of 1 s
        more = [{**r, "K": 4, "seconds": 2 * r["seconds"]} for r in met.pick("step")]
        told = Found([{**MACHINE, "settings": {"augmentation": {"examples": examples}}}])
        return efficiency(Found([*told.rows, *met.rows[1:], *more]))["short"].get("usual")

    assert usual(2)["seconds"] == 1
    assert usual(4)["seconds"] == usual(6)["seconds"] == 2  # there are four fixed examples
    assert usual(1) is None


def test_noise_above_the_step_is_no_figure() -> None:
    assert efficiency(found([3.0, 3.0, 1.0], [2.0, 2.0, 4.0]))["short"]["usual"] is None
    assert efficiency(found([3.0], []))["short"]["usual"] is None


def test_small_products_are_like_one_adapters_step_only() -> None:
    limits = limits_of(found([2.0], [6.0]))
    assert limits["product of a step's size"]["rate"] == 40  # of the model's type
    assert limits["product of a step's size"]["of_peak"] == 0.4
    bank = efficiency(found([2.0], [6.0], bank=8))["short"]["K=2 B=8"]
    assert (bank["median"], bank["of_products_at_this_size"]) == (0.2, None)
    unmeasured = efficiency(found([2.0], [6.0], small=(256, 256, 256)))["short"]["usual"]
    assert unmeasured["of_products_at_this_size"] is None
