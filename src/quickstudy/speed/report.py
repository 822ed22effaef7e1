"""The summary as a table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from quickstudy.speed.workload import LENGTHS

# figure, what it says, unit
LINES = (
    ("practice_speedup_vs_naive", "practice, naive (PEFT and Trainer) over ours", "×"),
    ("practice_speedup_vs_naive_same_layers", "… where ours adapts every layer as well", "×"),
    ("practice_speedup_vs_loop", "… over a hand-written PEFT loop, without the Trainer", "×"),
    ("pipeline_speedup_vs_naive", "whole unsure request, naive over ours", "×"),
    ("unsure_over_plain", "unsure request over the plain answer", "×"),
    ("sure_over_plain", "sure request over the plain answer", "×"),
    ("batch8_throughput_ratio", "8 unsure requests together, one tool list", "×"),
    ("batch8_different_lists_ratio", "8 unsure requests together, different tool lists", "×"),
    ("batch8_different_lists_bound", "… and what the stages' shares allow", "×"),
    ("training_efficiency", "training step, share of the matrix peak", ""),
    ("decode_speedup_vs_generate", "decoding a token, generate over ours", "×"),
    ("decode_bandwidth_fraction", "decoding, share of the memory bandwidth", ""),
    ("reset_ms", "reset", " ms"),
    ("peak_memory_ratio", "peak memory, unsure over plain inference", "×"),
    ("peak_memory_ratio_own_weights", "… without copies of weights for decoding", "×"),
    ("unsure_seconds_median", "unsure request", " s"),
    ("unsure_seconds_limit", "… and what the machine's limits allow", " s"),
)
_CAPTION = "short, middle, long: about 400, 1,500, 3,000 tokens before the request"


def table(summary: Mapping[str, Any]) -> Table:
    """The figures at each prefix length; those that hang on none in the first column."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("medians")
    names = _lengths(summary)
    made.add_column(names[0] if names else "", justify="right")
    for name in names[1:]:
        made.add_column(name, justify="right")
    details = summary["details"]
    for key, meaning, unit in LINES:
        by = details.get(key if key != "unsure_seconds_median" else "unsure_seconds")
        values = [summary[key], *[None] * (len(names) - 1)]
        if isinstance(by, Mapping) and names:
            values = [_figure(by.get(name)) for name in names]
        made.add_row(meaning, *(_cell(value, unit) for value in values))
    made.caption = Text("\n".join([_CAPTION, *_fell_back(details["fell_back"])]))
    return made


def _fell_back(told: Mapping[str, Any]) -> Iterator[str]:
    """What the ratios leave out."""
    if told["failed"]:
        yield (
            f"{told['failed']} of {told['n']} forced practices came to nothing and are in no ratio:"
        )
        for reason, count in Counter(told["why"]).most_common():
            yield f"{count} × {reason or 'no reason told'}"


def _lengths(summary: Mapping[str, Any]) -> list[str]:
    """The prefix lengths that any figure was measured at."""
    measured = [by for by in summary["details"].values() if isinstance(by, Mapping)]
    return [name for name in LENGTHS if any(name in by for by in measured)]


def _figure(found: Mapping[str, Any] | None) -> float | None:
    """The one number of a figure's details: its median, at the usual K, or the sum of all."""
    found = found and found.get("usual", found)
    return found.get("median", found.get("all")) if found else None


def _cell(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.3g}{unit}"
