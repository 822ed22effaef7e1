"""The summary as a picture: one SVG that needs nothing else, with a panel for what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from quickstudy.types import STAGES

Details = Mapping[str, Any]

_COLOURS = {stage: f"C{number}" for number, stage in enumerate(STAGES)}
_SPEEDUPS = {
    "practice vs Trainer": "practice_speedup_vs_naive",
    "… ours on every layer too": "practice_speedup_vs_naive_same_layers",
    "practice vs PEFT loop": "practice_speedup_vs_loop",
    "practice vs ours on full sequences": "practice_speedup_vs_full",
    "whole request vs naive": "pipeline_speedup_vs_naive",
    "… ours with every step too": "pipeline_speedup_vs_naive_every_step",
}
_RATIOS = {
    "unsure": "unsure_over_plain",
    "sure": "sure_over_plain",
    "peak memory, unsure": "peak_memory_ratio",
    "peak memory, unsure, own weights": "peak_memory_ratio_own_weights",
    "peak memory, unsure, int8 copy": "peak_memory_ratio_int8",
}

# panels of seconds by stage: the ways of answering in each
_WAYS = {
    "seconds by stage": ("plain", "unsure"),
    "seconds by stage, the usual way and ours": ("naive", "ours-every-step"),
}


def draw(summary: Mapping[str, Any], file: Path) -> None:
    panels = _panels(summary)
    columns = min(3, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    with matplotlib.rc_context({"svg.hashsalt": "speed", "font.size": 9}):
        picture = Figure(figsize=(4.2 * columns, 0.6 + 3.4 * rows), layout="constrained")
        for number, panel in enumerate(panels, 1):
            panel(picture.add_subplot(rows, columns, number))
        picture.suptitle(_title(summary))
        picture.supxlabel("medians, from least to most; n: rounds", fontsize=8)
        picture.savefig(file, metadata={"Date": None})


def _panels(summary: Mapping[str, Any]) -> list[Callable[[Axes], None]]:
    """How to draw each panel that there are figures for."""
    details, lengths = summary["details"], summary["lengths"]
    at = partial(_by_length, details, lengths)
    shares = {
        "training step\nof the matrix peak": summary["training_efficiency"],
        "decoding\nof the bandwidth": summary["decode_bandwidth_fraction"],
    }
    measured = {label: share for label, share in shares.items() if share is not None}
    panels: list[tuple[Any, Callable[[Axes], None]]] = [
        (_any(details, _SPEEDUPS), partial(at, _SPEEDUPS, "times faster, by prefix length", True)),
        *(
            (shown := _ways(details["stages"], ways), partial(_stages, shown, title))
            for title, ways in _WAYS.items()
        ),
        (_any(details, _RATIOS), partial(at, _RATIOS, "over the plain answer", False)),
        (details["together"], partial(_together, details["together"])),
        (details["curves"], partial(_curves, details["curves"])),
        (measured, partial(_limits, measured)),
    ]
    return [panel for found, panel in panels if found]


def _any(details: Details, keys: Mapping[str, str]) -> bool:
    return any(details[key] for key in keys.values())


def _title(summary: Mapping[str, Any]) -> str:
    machine = summary["machine"] or {}
    told = [machine.get(key) for key in ("model", "dtype", "processor", "device")]
    told.append(f"threads: {machine['threads']}" if "threads" in machine else None)
    told.append("QUICK: a smoke test, nothing worth a figure" if summary["quick"] else None)
    return " · ".join(str(value) for value in told if value) or "nothing measured"


def _by_length(
    details: Details,
    lengths: list[str],
    keys: Mapping[str, str],
    title: str,
    log: bool,
    axes: Axes,
) -> None:
    for label, key in keys.items():
        points = {n: details[key][name] for n, name in enumerate(lengths) if name in details[key]}
        _line(axes, points, label)
    tokens = details["prefix_tokens"]
    ticks = [f"{name}\n{tokens[name]} tokens" if name in tokens else name for name in lengths]
    axes.set_xticks(range(len(lengths)), ticks)
    axes.set_xlim(-0.4, len(lengths) - 0.6)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}×")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, None)
        axes.axhline(1, color="grey", linewidth=0.5)
    _told(axes, title)


def _ways(stages: Details, ways: Sequence[str]) -> Details:
    """The stages' seconds of some ways of answering at each prefix length."""
    return {
        f"{prefix}: {way}": seconds
        for prefix, found in stages.items()
        for way, seconds in found.items()
        if way in ways
    }


def _stages(bars: Details, title: str, axes: Axes) -> None:
    """Stacked seconds, a bar for each way of answering."""
    for at, seconds in enumerate(bars.values()):
        left = 0.0
        for stage, spent in seconds.items():
            axes.barh(at, spent, left=left, color=_COLOURS[stage])
            left += spent
    for stage, colour in _COLOURS.items():
        axes.barh(0, 0, color=colour, label=stage)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    _told(axes, title)


def _together(together: Details, axes: Axes) -> None:
    for kind in ("same", "different"):
        points = {int(size): point for size, point in together.get(kind, {}).items()}
        _line(axes, points, f"{kind} tool list{'s' * (kind == 'different')}")
    if "different_model" in together:
        label = "different lists, if decoding alone\nwere shared (a model)"
        axes.axhline(together["different_model"], linestyle=":", color="C1", label=label)
    sizes = sorted(int(size) for size in together.get("same", {}))
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.set_ylim(0, None)
    axes.set_xlabel("B")
    _told(axes, "throughput of B together over one by one")


def _curves(curves: Details, axes: Axes) -> None:
    for axis, points in curves.items():
        _line(axes, dict(enumerate(points.values())), f"{axis}: {', '.join(points)}")
    axes.set(ylim=(0, None), xticks=[])
    _told(axes, "practice, seconds")


def _limits(shares: Mapping[str, float], axes: Axes) -> None:
    """How near the machine's limits practice and decoding come."""
    bars = axes.bar(list(shares), list(shares.values()))
    axes.bar_label(bars, fmt="{:.0%}")
    axes.set_ylim(0, 1)
    _told(axes, "share of the measured limit")


def _line(axes: Axes, points: Mapping[int, Any], label: str) -> None:
    """Medians from least to most, with the number of rounds."""
    kept = {x: point for x, point in points.items() if point}
    if not kept:
        return
    middle = [point["median"] for point in kept.values()]
    below = [point["median"] - point["min"] for point in kept.values()]
    above = [point["max"] - point["median"] for point in kept.values()]
    rounds = sorted({point["n"] for point in kept.values()})
    told = f"{label} (n {rounds[0]}{f' to {rounds[-1]}' if len(rounds) > 1 else ''})"
    axes.errorbar(list(kept), middle, yerr=(below, above), marker="o", capsize=3, label=told)


def _told(axes: Axes, title: str) -> None:
    axes.set_title(title)
    if axes.get_legend_handles_labels()[0]:  # matplotlib warns where there is nothing to tell
        below = (0.5, -0.14)  # not over the lines
        axes.legend(loc="upper center", bbox_to_anchor=below, ncols=2, fontsize=6.5, frameon=False)
