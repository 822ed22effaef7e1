"""How near a step of practice comes to the measured peaks. Calls no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quickstudy.speed.found import Details, Found, by_prefix, short, spread
from quickstudy.speed.limits import STEP_SHAPE
from quickstudy.speed.records import Record
from quickstudy.speed.workload import PRACTICE

LEAST = 6  # rounds that an interval needs, as in `found.interval`


def limits_of(found: Found) -> Details:
    """The best rate of each kind, and which way it was reached."""
    limits: Details = {}
    for kind in ("product bfloat16", "product float32", "read"):
        rows = [r for r in found.pick("limits") if r["variant"].startswith(kind)]
        if rows:
            best = max(rows, key=lambda r: float(r["rate"]))
            way = best["variant"] if kind == "read" else "x".join(map(str, best["shape"]))
            limits[kind] = {"rate": best["rate"], "by": way}
    small, peak = _small(found), limits.get(f"product {_dtype(found)}")
    if small and peak:
        by, share = "x".join(map(str, STEP_SHAPE)), short(small / peak["rate"])
        limits["product of a step's size"] = {"rate": small, "by": by, "of_peak": share}
    return limits


def _small(found: Found) -> float | None:
    """The rate of products as small as a step's, in the model's type."""
    products = found.pick("limits", f"product {_dtype(found)}")
    return max(
        (float(r["rate"]) for r in products if tuple(r["shape"]) == STEP_SHAPE), default=None
    )


def peak_of(found: Found) -> float | None:
    """The matrix peak in the type that the model computes in, operations a second."""
    best = limits_of(found).get(f"product {_dtype(found)}")
    return None if best is None else float(best["rate"])


def _dtype(found: Found) -> str | None:
    return next((r["machine"]["dtype"] for r in found.pick("machine")), None)


def _usual(found: Found) -> int:
    """The K of the settings, or the most fixed examples that there are."""
    settings = next((r.get("settings") for r in found.pick("machine")), None) or {}
    return int(min(settings.get("augmentation", {}).get("examples", PRACTICE), PRACTICE))


def efficiency(found: Found) -> Details:
    """Useful operations of a step over its time and the measured peak, by prefix, K and B.

    `usual` is the K of the settings. `of_products_at_this_size`, for one adapter: over the rate
    of products as small as its step's, instead of the peak. `whole practice` has the making of
    the adapter and its optimizer in it. None where noise is more than the step.
    """
    peak = peak_of(found)
    if peak is None:
        return {}
    small, usual = _small(found), _usual(found)

    def at(prefix: str) -> Details:
        told: Details = {}
        cells = sorted({(r["B"], r["K"]) for r in found.pick("step", prefix=prefix)})
        for bank, count in cells:
            pairs = found.pairs("step", "many", "few", prefix=prefix, K=count, B=bank)
            cell = _cell(pairs, peak, small if bank == 1 else None)
            told[f"K={count} B={bank}"] = cell
            if (bank, count) == (1, usual):
                told["usual"] = cell
        whole = [
            (r["flops_once"] + r["steps"] * r["flops_step"]) / r["seconds"] / peak
            for r in found.pick("practice", "ours-activated", prefix=prefix)
        ]
        return {**told, "whole practice": spread(whole)} if told else told

    return by_prefix(at)


def _cell(
    pairs: Sequence[tuple[Record, Record]], peak: float, small: float | None
) -> Details | None:
    seconds = _step(pairs)
    if seconds is None:
        return None
    middle, low, high = seconds
    rate = pairs[0][0]["flops_step"] / middle
    return {
        "median": short(rate / peak),
        "low": short(rate / peak * middle / high) if high else None,
        "high": short(rate / peak * middle / low) if low and low > 0 else None,
        "n": len(pairs),
        "of_products_at_this_size": small and short(rate / small),
        "seconds": short(middle),
    }


def _step(
    pairs: Sequence[tuple[Record, Record]], resamples: int = 4000
) -> tuple[float, float | None, float | None] | None:
    """Seconds of a step and their 95% interval (bootstrap over rounds; none of few rounds).

    The medians of many steps and of few apart, for a round in which few took longer than many
    must not be left out: what is left would be too slow.
    """
    if not pairs:
        return None
    seconds = np.asarray([(many["seconds"], few["seconds"]) for many, few in pairs])  # (n, 2)
    extra = pairs[0][0]["steps"] - pairs[0][1]["steps"]
    many, few = np.median(seconds, axis=0)
    if many <= few:
        return None
    middle = (many - few) / extra
    if len(pairs) < LEAST:
        return middle, None, None
    drawn = np.random.default_rng(0).integers(0, len(pairs), size=(resamples, len(pairs)))
    medians = np.median(seconds[drawn], axis=1)  # (resamples, 2)
    low, high = np.percentile((medians[:, 0] - medians[:, 1]) / extra, [2.5, 97.5])
    return middle, low, high
