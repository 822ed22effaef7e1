"""The figures behind the headlines: stages, batches, decoding, memory. Calls no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quickstudy.speed.efficiency import limits_of, peak_of
from quickstudy.speed.found import (
    Details,
    Found,
    by_round,
    paired_ratio,
    practised,
    short,
    spread,
    summed,
)
from quickstudy.speed.records import Record
from quickstudy.types import STAGES

# more rows share these at little cost, whatever their tool lists: every pass reads all weights
SHARED = ("draft", "awareness", "synthesis", "answer")
DECODING = ("ours", "ours-unconstrained", "ours-plain", "generate")

_SUMMED = ("seconds", "tokens", "passes", "bytes")
_WAYS = (
    ("whole", "plain"),
    ("whole", "unsure"),
    ("pipeline", "ours-every-step"),
    ("pipeline", "naive"),
)


def prefix_tokens(found: Found) -> dict[str, int]:
    """Tokens before the request, by the name of the prefix length."""
    rows = found.pick("practice") + found.pick("whole")
    return {r["prefix"]: r["prefix_tokens"] for r in rows if "prefix_tokens" in r}


def at_peaks(found: Found, prefix: str) -> Details | None:
    """Seconds that the work of an unsure request takes at the measured peaks.

    A model, no lower limit: prefill and the steps that were made, on the fixed examples, at the
    matrix peak; at the memory bandwidth the passes of the draft, in row `decode`, and as many for
    the answer. Synthesis is left out: what it decodes depends on the request.
    """
    peak, read = peak_of(found), limits_of(found).get("read")
    unsure = [r for r in found.pick("whole", "unsure", prefix=prefix) if practised(r)]
    practice = found.pick("practice", "ours-activated", prefix=prefix)
    decoded = found.pick("decode", "ours")
    if not (peak and read and unsure and practice and decoded):
        return None
    steps = float(np.mean([r.get("steps", len(r.get("losses", ()))) for r in unsure]))
    told = {
        "prefill": unsure[0]["prefill_flops"] / peak,
        "decoding": 2 * float(np.median([r["bytes"] for r in decoded])) / read["rate"],
        "practice": (practice[0]["flops_once"] + steps * practice[0]["flops_step"]) / peak,
    }
    return {name: short(value) for name, value in {**told, "all": sum(told.values())}.items()}


def stages(found: Found, prefix: str) -> Details:
    """Median seconds of each stage, ours and naive."""
    told = {}
    for row, variant in _WAYS:
        rows = [r for r in found.pick(row, variant, prefix=prefix) if practised(r)]
        medians = {
            stage: short(np.median([r["stages"][stage] for r in rows]))
            for stage in STAGES
            if rows and all(stage in r["stages"] for r in rows)
        }
        if medians:
            told[variant] = medians
    return told


def reset(found: Found) -> Details | None:
    """Milliseconds."""
    rows = [r for r in found.pick("whole", "unsure") if r["practised"]]
    return spread([1000 * r["stages"]["reset"] for r in rows if "reset" in r["stages"]])


def together(found: Found) -> Details:
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
        told["different_model"] = short(shared_passes(_shared_share(each), 8))
    return told


def shared_passes(share: float, rows: int) -> float:
    """Throughput with different tool lists if decoding alone were shared: Amdahl's law.

    A model, no bound: decoding (`share` of the seconds) costs all rows what it costs one, prefill
    and practice cost each row what they cost it alone. Practice alone is not at its limit, so
    that sharing it can save time as well.
    """
    return 1 / (1 - share + share / rows)


def _shared_share(each: Sequence[Record]) -> float:
    spent = [sum(e["stages"].values()) for e in each]
    shared = [sum(e["stages"].get(stage, 0.0) for stage in SHARED) for e in each]
    return float(sum(shared) / sum(spent))


def decode(found: Found) -> Details:
    """Of each variant, a round at a time: time, tokens and bytes of passes; the gain as ratios."""
    told: Details = {}
    read = limits_of(found).get("read")
    for variant in DECODING:
        rounds = by_round([(r,) for r in found.pick("decode", variant)])
        if not rounds:
            continue
        sums = [{key: sum(r[key] for (r,) in members) for key in _SUMMED} for members in rounds]
        told[variant] = {
            "ms_a_token": spread([1000 * s["seconds"] / s["tokens"] for s in sums]),
            "ms_a_pass": spread([1000 * s["seconds"] / s["passes"] for s in sums]),
            "tokens_a_pass": spread([s["tokens"] / s["passes"] for s in sums]),
            "mebibytes_a_pass": spread([s["bytes"] / s["passes"] / 2**20 for s in sums]),
        }
        if read:
            shares = [s["bytes"] / s["seconds"] / read["rate"] for s in sums]
            told[variant]["bandwidth_fraction"] = spread(shares)
    told["speedup_vs_generate"] = {
        variant: ratio for variant in DECODING[:-1] if (ratio := _faster(found, variant))
    }
    return told


def _faster(found: Found, variant: str) -> Details | None:
    """Seconds a token, `generate` over a variant."""
    pairs = found.pairs("decode", "generate", variant)
    seconds, tokens = summed(pairs, "seconds"), summed(pairs, "tokens")
    return paired_ratio([(a / m, b / n) for (a, b), (m, n) in zip(seconds, tokens, strict=True)])


def memory(found: Found, variant: str, prefix: str) -> Details | None:
    """Peak of unsure requests over that of plain inference, which keeps no copies."""
    pairs = found.pairs("memory", variant, "plain-own", prefix=prefix)
    return paired_ratio([(a["peak"], b["peak"]) for a, b in pairs if a["practised"]])


def peaks(found: Found, prefix: str) -> Details:
    """Mebibytes."""
    variants = ("plain-own", "plain", "unsure-own", "unsure-int8", "unsure")
    rows = {v: found.pick("memory", v, prefix=prefix) for v in variants}
    return {v: spread([r["peak"] / 2**20 for r in met]) for v, met in rows.items() if met}


def curves(found: Found) -> Details:
    """Median seconds of practice along each axis."""
    curves: Details = {}
    for axis in ("K", "rank", "steps"):
        values = sorted({r["value"] for r in found.pick("curves", axis=axis)})
        for value in values:
            rows = found.pick("curves", axis=axis, value=value)
            curves.setdefault(axis, {})[str(value)] = spread([r["seconds"] for r in rows])
    return curves
