"""From records to the figures that count. Calls no model.

Ratios are medians over rounds, each of which is a pair of variants. A headline is the median of
its figure over the prefix lengths, each of which is under `details`; null where one of them was
not measured. `behind` names the row and run of each headline, and how many rounds it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quickstudy.speed import details as told_by
from quickstudy.speed.efficiency import efficiency, limits_of
from quickstudy.speed.found import Details, Found, by_prefix, short, spread
from quickstudy.speed.records import Record, ended, latest
from quickstudy.speed.workload import LENGTHS

# headlines by prefix length: the row, and the key under `details`
BY_LENGTH = {
    "practice_speedup_vs_naive": ("practice", "practice_speedup_vs_naive"),
    "practice_speedup_vs_naive_same_layers": ("practice", "practice_speedup_vs_naive_same_layers"),
    "practice_speedup_vs_loop": ("practice", "practice_speedup_vs_loop"),
    "pipeline_speedup_vs_naive": ("pipeline", "pipeline_speedup_vs_naive"),
    "pipeline_speedup_vs_naive_every_step": ("pipeline", "pipeline_speedup_vs_naive_every_step"),
    "unsure_over_plain": ("whole", "unsure_over_plain"),
    "sure_over_plain": ("whole", "sure_over_plain"),
    "unsure_seconds_median": ("whole", "unsure_seconds"),
    "unsure_seconds_at_peaks": ("whole", "unsure_seconds_at_peaks"),
    "training_efficiency": ("step", "training_efficiency"),
    "peak_memory_ratio": ("memory", "peak_memory_ratio"),
    "peak_memory_ratio_own_weights": ("memory", "peak_memory_ratio_own_weights"),
    "peak_memory_ratio_int8": ("memory", "peak_memory_ratio_int8"),
}
# the others: the row, and the way to the figure under `details`
ALONE = {
    "batch8_throughput_ratio": ("together", ("together", "same", "8")),
    "batch8_different_lists_ratio": ("together", ("together", "different", "8")),
    "batch8_different_lists_model": ("together", ("together", "different_model")),
    "decode_speedup_vs_generate": ("decode", ("decode", "speedup_vs_generate", "ours")),
    "decode_speedup_vs_generate_plain": ("decode", ("decode", "speedup_vs_generate", "ours-plain")),
    "decode_bandwidth_fraction": ("decode", ("decode", "ours", "bandwidth_fraction")),
    "reset_ms": ("whole", ("reset_ms",)),
}


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """The headlines, what each comes from, and `details` behind them."""
    found = Found(latest(records))
    machine = next(iter(found.pick("machine")), {})
    lengths = machine.get("lengths", LENGTHS)
    details = _details(found)
    headlines: Details = {}
    behind: Details = {}
    for name, (row, key) in BY_LENGTH.items():
        figures = {at: figure_at(details[key], at) for at in lengths}
        values = [value_of(figure) for figure in figures.values()]
        whole = [value for value in values if value is not None]
        headlines[name] = short(np.median(whole)) if len(whole) == len(lengths) else None
        behind[name] = (row, {at: f["n"] for at, f in figures.items() if f and "n" in f})
    for name, (row, way) in ALONE.items():
        figure = at_way(details, way)
        headlines[name] = value_of(figure)
        behind[name] = (row, figure["n"] if isinstance(figure, Mapping) else None)
    runs = {r["row"]: r["run"] for r in found.rows}
    return {
        **headlines,
        "behind": {
            name: {"row": row, "run": runs[row], "n": n}
            for name, (row, n) in behind.items()
            if headlines[name] is not None
        },
        "quick": machine.get("quick"),
        "lengths": list(lengths),
        "runs": _runs(records, found),
        "machine": machine.get("machine"),
        "settings": machine.get("settings"),
        "details": details,
    }


def figure_at(by_length: Mapping[str, Any], name: str) -> Any:
    """A figure at a prefix length; that of a training step at the usual number of examples."""
    figure = by_length.get(name)
    steps = isinstance(figure, Mapping) and "whole practice" in figure
    return figure.get("usual") if steps and isinstance(figure, Mapping) else figure


def at_way(details: Any, way: Sequence[str]) -> Any:
    """What lies at the end of the keys; None if one is missing."""
    for key in way:
        details = details.get(key) if isinstance(details, Mapping) else None
    return details


def value_of(figure: Any) -> float | None:
    """The one number of a figure: its median, or the sum of all parts, or itself."""
    if isinstance(figure, Mapping):
        figure = figure.get("median", figure.get("all"))
    return None if figure is None else float(figure)


def _details(found: Found) -> Details:
    ratios = found.ratios
    return {
        "limits": limits_of(found),
        "prefix_tokens": told_by.prefix_tokens(found),
        "practice_speedup_vs_naive": ratios("practice", "naive-trainer", "ours-activated"),
        "practice_speedup_vs_loop": ratios("practice", "naive-loop", "ours-activated"),
        "practice_speedup_vs_naive_same_layers": ratios(
            "practice", "naive-trainer", "ours-all-layers"
        ),
        "practice_speedup_vs_full": ratios("practice", "ours-full", "ours-activated"),
        "pipeline_speedup_vs_naive": ratios("pipeline", "naive", "ours"),
        "pipeline_speedup_vs_naive_every_step": ratios("pipeline", "naive", "ours-every-step"),
        "unsure_over_plain": ratios("whole", "unsure", "plain"),
        "sure_over_plain": ratios("whole", "sure", "plain"),
        "unsure_seconds": by_prefix(lambda p: spread(found.seconds("whole", "unsure", p))),
        "plain_seconds": by_prefix(lambda p: spread(found.seconds("whole", "plain", p))),
        "unsure_seconds_at_peaks": by_prefix(lambda p: told_by.at_peaks(found, p)),
        "stages": by_prefix(lambda p: told_by.stages(found, p)),
        "reset_ms": told_by.reset(found),
        "fell_back": found.fell_back(),
        "together": told_by.together(found),
        "training_efficiency": efficiency(found),
        "decode": told_by.decode(found),
        "peak_memory_ratio": by_prefix(lambda p: told_by.memory(found, "unsure", p)),
        "peak_memory_ratio_own_weights": by_prefix(
            lambda p: told_by.memory(found, "unsure-own", p)
        ),
        "peak_memory_ratio_int8": by_prefix(lambda p: told_by.memory(found, "unsure-int8", p)),
        "peak_mebibytes": by_prefix(lambda p: told_by.peaks(found, p)),
        "curves": told_by.curves(found),
    }


def _runs(records: Sequence[Record], found: Found) -> Details:
    """The runs that figures come from: their version, rounds, and rows, with which came to an end.

    Records from before ends were marked have none.
    """
    whole = ended(records)
    began = {r["run"]: r for r in records if r["row"] == "machine"}
    rows: dict[str, dict[str, bool]] = {}
    for r in found.rows:
        if r["row"] != "machine":
            rows.setdefault(r["run"], {})[r["row"]] = (r["run"], r["row"]) in whole
    return {
        run: {
            **began.get(run, {}).get("origin", {"version": None, "commit": None, "dirty": None}),
            "repeats": began.get(run, {}).get("repeats"),
            "ended": marks,
        }
        for run, marks in rows.items()
    }
