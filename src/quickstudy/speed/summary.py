"""From records to the figures that count. Calls no model.

Ratios are medians over pairs of the same round, with a 95% bootstrap interval (percentile). A
headline is the median over the prefix lengths that were measured, each of which is under
`details`. A figure that could not be measured is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quickstudy.speed.efficiency import efficiency, limits_of, peak_of
from quickstudy.speed.found import Details, Found, by_prefix, paired_ratio, practised, short, spread
from quickstudy.speed.records import Record
from quickstudy.speed.workload import LENGTHS
from quickstudy.types import STAGES

# more rows share these at little cost, whatever their tool lists: every pass reads all weights
SHARED = ("draft", "awareness", "synthesis", "answer")


def latest(records: Sequence[Record]) -> list[Record]:
    """The records of each row's last run: a row can be run again alone."""
    last = {record["row"]: record["run"] for record in records}
    return [record for record in records if record["run"] == last[record["row"]]]


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """The headlines, and `details` behind each."""
    found = Found(latest(records))
    details = {
        "limits": limits_of(found),
        "practice_speedup_vs_naive": found.ratios("practice", "naive-trainer", "ours-activated"),
        "practice_speedup_vs_loop": found.ratios("practice", "naive-loop", "ours-activated"),
        "practice_speedup_vs_naive_same_layers": found.ratios(
            "practice", "naive-trainer", "ours-all-layers"
        ),
        "practice_speedup_vs_full": found.ratios("practice", "ours-full", "ours-activated"),
        "pipeline_speedup_vs_naive": found.ratios("pipeline", "naive", "ours"),
        "unsure_over_plain": found.ratios("whole", "unsure", "plain"),
        "sure_over_plain": found.ratios("whole", "sure", "plain"),
        "unsure_seconds": by_prefix(lambda p: spread(found.seconds("whole", "unsure", p))),
        "plain_seconds": by_prefix(lambda p: spread(found.seconds("whole", "plain", p))),
        "unsure_seconds_limit": by_prefix(lambda p: _least(found, p)),
        "stages": by_prefix(lambda p: _stages(found, p)),
        "fell_back": found.fell_back(),
        "together": _together(found),
        "training_efficiency": efficiency(found),
        "decode": _decode(found),
        "peak_memory_ratio": by_prefix(lambda p: _memory(found, "unsure", p)),
        "peak_memory_ratio_own_weights": by_prefix(lambda p: _memory(found, "unsure-own", p)),
        "peak_mebibytes": by_prefix(lambda p: _peaks(found, p)),
        "curves": _curves(found),
    }
    batch = details["together"]
    return {
        "practice_speedup_vs_naive": _headline(details["practice_speedup_vs_naive"]),
        "practice_speedup_vs_naive_same_layers": _headline(
            details["practice_speedup_vs_naive_same_layers"]
        ),
        "practice_speedup_vs_loop": _headline(details["practice_speedup_vs_loop"]),
        "pipeline_speedup_vs_naive": _headline(details["pipeline_speedup_vs_naive"]),
        "unsure_over_plain": _headline(details["unsure_over_plain"]),
        "sure_over_plain": _headline(details["sure_over_plain"]),
        "batch8_throughput_ratio": _median(batch.get("same", {}).get("8")),
        "batch8_different_lists_ratio": _median(batch.get("different", {}).get("8")),
        "batch8_different_lists_bound": batch.get("different_bound"),
        "training_efficiency": _headline(
            {name: by.get("usual") for name, by in details["training_efficiency"].items()}
        ),
        "decode_speedup_vs_generate": _median(details["decode"].get("speedup_vs_generate")),
        "decode_bandwidth_fraction": _median(details["decode"].get("bandwidth_fraction")),
        "reset_ms": _median(_reset(found)),
        "peak_memory_ratio": _headline(details["peak_memory_ratio"]),
        "peak_memory_ratio_own_weights": _headline(details["peak_memory_ratio_own_weights"]),
        "unsure_seconds_median": _headline(details["unsure_seconds"]),
        "unsure_seconds_limit": _middle(details["unsure_seconds_limit"], "all"),
        "machine": next((r["machine"] for r in found.rows if r["row"] == "machine"), None),
        "details": details,
    }


def _least(found: Found, prefix: str) -> Details | None:
    """Seconds that an unsure request takes at least on this machine, from the measured peaks.

    Prefill and practice at the matrix peak; draft and answer at the memory bandwidth, in as many
    passes as ours take for the draft (the answer takes fewer). Synthesis is left out: what it
    decodes depends on the request.
    """
    peak, read = peak_of(found), limits_of(found).get("read")
    prefilled = found.pick("whole", "unsure", prefix=prefix)
    practised = found.pick("practice", "ours-activated", prefix=prefix)
    decoded = found.pick("decode", "ours")
    if not (peak and read and prefilled and practised and decoded):
        return None
    practice = practised[0]["flops_once"] + practised[0]["steps"] * practised[0]["flops_step"]
    told = {
        "prefill": prefilled[0]["prefill_flops"] / peak,
        "decoding": 2 * float(np.median([r["bytes"] for r in decoded])) / read["rate"],
        "practice": practice / peak,
    }
    return {name: short(value) for name, value in {**told, "all": sum(told.values())}.items()}


def _stages(found: Found, prefix: str) -> Details:
    """Median seconds of each stage, ours and naive."""
    told = {}
    for row, variant in (("whole", "plain"), ("whole", "unsure"), ("pipeline", "naive")):
        rows = [r for r in found.pick(row, variant, prefix=prefix) if practised(r)]
        stages = {
            stage: short(np.median([r["stages"][stage] for r in rows]))
            for stage in STAGES
            if rows and all(stage in r["stages"] for r in rows)
        }
        if stages:
            told[variant] = stages
    return told


def _reset(found: Found) -> Details | None:
    rows = [r for r in found.pick("whole", "unsure") if r["practised"]]
    return spread([1000 * r["stages"]["reset"] for r in rows])


def _together(found: Found) -> Details:
    """Throughput of B at once over that of the same requests one after another."""
    told: Details = {}
    for kind in ("same", "different"):
        alone = {r["repeat"]: r["each"] for r in found.pick("together", "alone", lists=kind)}
        sizes: dict[int, list[tuple[float, float]]] = {}
        for r in found.pick("together", lists=kind):
            if "B" in r:
                some = alone[r["repeat"]][: r["B"]]
                pair = (sum(each["seconds"] for each in some), r["seconds"])
                sizes.setdefault(r["B"], []).append(pair)
        if sizes:
            told[kind] = {str(size): paired_ratio(pairs) for size, pairs in sizes.items()}
    each = [e for r in found.pick("together", "alone", lists="different") for e in r["each"]]
    if each:
        told["shared_share"] = short(_shared_share(each))
        told["different_bound"] = short(bound(_shared_share(each), 8))
    return told


def bound(share: float, rows: int) -> float:
    """Throughput at best with different tool lists: Amdahl's law.

    Decoding (`share` of the seconds) reads the weights once for all rows; prefill and practice
    compute at their limit already and cost each row what they cost it alone.
    """
    return 1 / (1 - share + share / rows)


def _shared_share(each: Sequence[Record]) -> float:
    spent = [sum(e["stages"].values()) for e in each]
    shared = [sum(e["stages"].get(stage, 0.0) for stage in SHARED) for e in each]
    return float(sum(shared) / sum(spent))


def _decode(found: Found) -> Details:
    told: Details = {}
    bandwidth = limits_of(found).get("read")
    for variant in ("ours", "ours-unconstrained", "generate"):
        rows = found.pick("decode", variant)
        told[variant] = {
            "ms_a_token": spread([1000 * r["seconds"] / r["tokens"] for r in rows if r["tokens"]]),
            "ms_a_pass": spread([1000 * r["seconds"] / r["passes"] for r in rows]),
        }
        if bandwidth:
            read = [r["bytes"] / r["seconds"] for r in rows]
            told[variant]["bandwidth_fraction"] = spread([x / bandwidth["rate"] for x in read])
    pairs = found.pairs("decode", "generate", "ours")
    told["speedup_vs_generate"] = paired_ratio(
        [(a["seconds"] / a["tokens"], b["seconds"] / b["tokens"]) for a, b in pairs]
    )
    told["bandwidth_fraction"] = told["ours"].get("bandwidth_fraction")
    return told


def _memory(found: Found, variant: str, prefix: str) -> Details | None:
    """Peak of unsure requests over that of plain inference, which keeps no copies."""
    pairs = found.pairs("memory", variant, "plain-own", prefix=prefix)
    return paired_ratio([(a["peak"], b["peak"]) for a, b in pairs if a["practised"]])


def _peaks(found: Found, prefix: str) -> Details:
    variants = ("plain-own", "plain", "unsure-own", "unsure")
    rows = {v: found.pick("memory", v, prefix=prefix) for v in variants}
    return {v: spread([r["peak"] / 2**20 for r in met]) for v, met in rows.items() if met}


def _curves(found: Found) -> Details:
    """Median seconds of practice along each axis."""
    curves: Details = {}
    for axis in ("K", "rank", "steps"):
        values = sorted({r["value"] for r in found.pick("curves", axis=axis)})
        for value in values:
            rows = found.pick("curves", axis=axis, value=value)
            curves.setdefault(axis, {})[str(value)] = spread([r["seconds"] for r in rows])
    return curves


def _headline(by_prefix: Details) -> float | None:
    return _middle(by_prefix, "median")


def _middle(by_prefix: Details, figure: str) -> float | None:
    """The median over the prefix lengths that were measured."""
    found = [float(by_prefix[p][figure]) for p in LENGTHS if by_prefix.get(p)]
    return short(np.median(found)) if found else None


def _median(figure: Details | None) -> float | None:
    return None if figure is None else float(figure["median"])
