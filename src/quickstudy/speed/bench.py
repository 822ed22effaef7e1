"""READ FIRST in this folder: the benchmark from end to end.

records.jsonl   every timed repetition, appended as it comes
summary.json    the figures that count, with spread, and the machine
speed.svg       the same as a picture
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from quickstudy import files
from quickstudy.config import Config
from quickstudy.errors import QuickstudyError
from quickstudy.model import LanguageModel, PrefixCache
from quickstudy.speed import cycle, decoding, figure, limits, memory, naive, training, workload
from quickstudy.speed.measure import Record, Recorder, read
from quickstudy.speed.setting import Setting
from quickstudy.speed.summary import summarise

ROWS: Mapping[str, Callable[[Setting], None]] = {
    "limits": lambda setting: limits.measure(setting.recorder, setting.quick),
    "practice": training.against_naive,
    "step": training.one_step,
    "curves": training.curves,
    "decode": decoding.decode,
    "whole": cycle.whole,
    "pipeline": cycle.pipeline,
    "together": cycle.together,
    "memory": memory.memory,
}
# what two runs must have alike to stand in one summary, beside their settings
COMPARED = ("model", "device", "processor", "threads", "torch", "dtype")
QUICK = ("decoding.max_new_tokens=64", "learning.epochs=1")


def run(
    spec: str,
    out: Path,
    console: Console,
    *,
    repeats: int,
    threads: int | None,
    quick: bool,
    only: Collection[str],
) -> dict[str, Any]:
    """Runs the rows and writes the results; gives the summary.

    Args:
        only: rows to run; empty: all. The summary takes the other rows from what is in `out`.

    Raises:
        QuickstudyError: if a row is unknown, the model reads too few tokens, or `out` holds
            results that do not compare.
    """
    unknown = sorted(set(only) - set(ROWS))
    if unknown:
        raise QuickstudyError(f"unknown row {unknown[0]}; choose from {', '.join(ROWS)}")
    given = [*(QUICK if quick else ()), *([f"model.threads={threads}"] if threads else ())]
    config = Config.load(None, given)
    _prepare(out)
    with console.status(f"loading {spec}"):
        model = LanguageModel.load(spec, config.model)
    model.prefixes = PrefixCache(0)  # every request pays for its own
    records = out / "records.jsonl"
    lengths = _lengths(model, config, quick)
    told = {"machine": limits.machine(model), "quick": quick, "settings": _settings(config)}
    _check_comparable(records, told)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    naive.quiet()
    with Progress(*columns, console=console, transient=True) as progress:
        name = datetime.now(UTC).isoformat(timespec="seconds")
        recorder = Recorder(records, name, model.device, repeats, progress)
        recorder.write("machine", "", **told)
        setting = Setting(model, spec, config, recorder, lengths, quick)
        chosen = [row for row in ROWS if not only or row in only]
        for row in progress.track(chosen, description="rows"):
            ROWS[row](setting)
    summary = summarise(read(records))
    files.write(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    figure.draw(summary, out / "speed.svg")
    return summary


def _lengths(model: LanguageModel, config: Config, quick: bool) -> list[workload.Scenario]:
    found = workload.scenarios()
    names = workload.LENGTHS[:1] if quick else workload.LENGTHS
    spare = config.decoding.max_new_tokens
    lengths = [found[name] for name in names if workload.fits(model, found[name], spare)]
    if not lengths:
        raise QuickstudyError(
            f"{model.name} reads {model.context_length} tokens, too few for the shortest tool list"
            f" and an answer of {spare}; choose a --model with a longer context"
        )
    return lengths


def _settings(config: Config) -> dict[str, Any]:
    """What can change a figure; the environment can set any of it."""
    stages = ("decoding", "awareness", "augmentation", "learning")
    return {
        "method": config.method,
        "repair": config.repair,
        "budget_seconds": config.budget_seconds,
        "model": config.model.model_dump(
            mode="json", include={"dtype", "decoding_weights", "prefix_cache"}
        ),
        **{stage: getattr(config, stage).model_dump(mode="json") for stage in stages},
    }


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "records.jsonl").touch()
    except OSError as error:
        reason = error.strerror
        raise QuickstudyError(f"cannot write to {out}: {reason}; use another --out") from error


def _check_comparable(file: Path, told: Record) -> None:
    """Refuses to mix runs: ratios of one machine do not stand beside limits of another."""
    here = _compared(told)
    for record in (r for r in read(file) if r["row"] == "machine"):
        there = _compared(record)
        for name in {**here, **there}:
            if here.get(name) != there.get(name):
                raise QuickstudyError(
                    f"{file} holds results with {name} = {there.get(name, 'unknown')}, and now it"
                    f" is {here.get(name, 'unknown')}; use another --out"
                )


def _compared(told: Record) -> dict[str, Any]:
    """What must be alike, by name: `model`, `quick`, `learning.rank`."""
    machine = told["machine"]
    alike = {name: machine[name] for name in COMPARED if name in machine}
    alike |= {"quick": told["quick"]} if "quick" in told else {}
    for name, value in told.get("settings", {}).items():
        fields = value.items() if isinstance(value, dict) else [("", value)]
        alike |= {f"{name}.{field}".rstrip("."): setting for field, setting in fields}
    return alike
