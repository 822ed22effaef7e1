"""The summary as a picture: one SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quickstudy.types import STAGES

_COLOURS = {stage: f"C{number}" for number, stage in enumerate(STAGES)}


def draw(summary: Mapping[str, Any], file: Path) -> None:
    details = summary["details"]
    with matplotlib.rc_context({"svg.hashsalt": "speed", "font.size": 9}):
        picture = Figure(figsize=(12, 7), layout="constrained")
        axes = picture.subplots(2, 3)
        _speedups(axes[0, 0], details)
        _stages(axes[0, 1], details["stages"])
        _ratios(axes[0, 2], details)
        _together(axes[1, 0], details["together"])
        _curves(axes[1, 1], details["curves"])
        _limits(axes[1, 2], summary)
        machine = summary["machine"] or {}
        told = (machine.get(key) for key in ("model", "dtype", "processor", "threads", "device"))
        picture.suptitle(" · ".join(str(value) for value in told))
        picture.savefig(file, metadata={"Date": None})


def _speedups(axes: Axes, details: Mapping[str, Any]) -> None:
    lines = {
        "practice vs Trainer": "practice_speedup_vs_naive",
        "practice vs PEFT loop": "practice_speedup_vs_loop",
        "practice vs ours on full sequences": "practice_speedup_vs_full",
        "whole request vs naive": "pipeline_speedup_vs_naive",
    }
    for label, key in lines.items():
        _line(axes, details[key], label)
    axes.set(title="times faster, by prefix length", yscale="log")
    _legend(axes)


def _ratios(axes: Axes, details: Mapping[str, Any]) -> None:
    for label, key in (("unsure", "unsure_over_plain"), ("sure", "sure_over_plain")):
        _line(axes, details[key], label)
    _line(axes, details["peak_memory_ratio"], "peak memory, unsure")
    _line(axes, details["peak_memory_ratio_own_weights"], "peak memory, unsure, own weights")
    axes.axhline(1, color="grey", linewidth=0.5)
    axes.set(title="over the plain answer, by prefix length", ylim=(0, None))
    _legend(axes)


def _stages(axes: Axes, stages: Mapping[str, Any]) -> None:
    """Stacked seconds, a bar for each way of answering at each prefix length."""
    labels: list[str] = []
    for prefix, ways in stages.items():
        for way, seconds in ways.items():
            at, bottom = len(labels), 0.0
            for stage, spent in seconds.items():
                axes.bar(at, spent, bottom=bottom, color=_COLOURS[stage])
                bottom += spent
            labels.append(f"{prefix}\n{way}")
    for stage, colour in _COLOURS.items():
        axes.bar(0, 0, color=colour, label=stage)
    axes.set_xticks(range(len(labels)), labels, fontsize=6)
    axes.set(title="seconds by stage")
    _legend(axes)


def _together(axes: Axes, together: Mapping[str, Any]) -> None:
    for kind in ("same", "different"):
        _line(axes, together.get(kind, {}), f"{kind} tool list")
    if "different_bound" in together:
        axes.axhline(together["different_bound"], linestyle=":", label="bound, different lists")
    _legend(axes)
    axes.set(title="throughput of B together over one by one", ylim=(0, None))


def _curves(axes: Axes, curves: Mapping[str, Any]) -> None:
    for axis, points in curves.items():
        _line(axes, points, f"{axis}: {', '.join(points)}", by_place=True)
    _legend(axes)
    axes.set(title="practice, seconds", ylim=(0, None), xticks=[])


def _limits(axes: Axes, summary: Mapping[str, Any]) -> None:
    """How near the machine's limits practice and decoding come."""
    shares = {
        "training step\nof the matrix peak": summary["training_efficiency"],
        "decoding\nof the bandwidth": summary["decode_bandwidth_fraction"],
    }
    measured = {label: share for label, share in shares.items() if share is not None}
    axes.bar(list(measured), list(measured.values()))
    axes.set(title="share of the measured limit", ylim=(0, 1))


def _line(axes: Axes, points: Mapping[str, Any], label: str, *, by_place: bool = False) -> None:
    """Medians with quartiles; values on the x axis as they are named, or by their place."""
    kept = {name: point for name, point in points.items() if point}
    if not kept:
        return
    middle = [point["median"] for point in kept.values()]
    below = [point["median"] - point["q1"] for point in kept.values()]
    above = [point["q3"] - point["median"] for point in kept.values()]
    x = list(range(len(kept))) if by_place else list(kept)
    axes.errorbar(x, middle, yerr=(below, above), marker="o", capsize=3, label=label)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:  # matplotlib warns where there is nothing to tell
        axes.legend(fontsize=7)
