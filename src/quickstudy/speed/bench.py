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
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from quickstudy import catalog, files, jsonlines
from quickstudy.config import Config
from quickstudy.errors import QuickstudyError
from quickstudy.model import LanguageModel, PrefixCache
from quickstudy.speed import cycle, decoding, figure, limits, memory, naive, training, workload
from quickstudy.speed.folder import check_comparable, held
from quickstudy.speed.measure import Recorder
from quickstudy.speed.origin import origin
from quickstudy.speed.records import ended, read
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
    _check_rows(only)
    given = [*(QUICK if quick else ()), *([f"model.threads={threads}"] if threads else ())]
    config = Config.load(None, given)
    catalog.resolve(spec, config.model.cache_dir)  # a wrong name leaves no folder behind
    with held(out) as file:
        before = read(file)
        with console.status(f"loading {spec}"):
            model = LanguageModel.load(spec, config.model)
        model.prefixes = PrefixCache(0)  # every request pays for its own
        lengths = _lengths(model, config, quick)
        told = {
            "machine": limits.machine(model),
            "origin": origin(),
            "quick": quick,
            "repeats": repeats,
            "lengths": [scenario.name for scenario in lengths],
            "settings": _settings(config),
        }
        check_comparable(file, before, told)
        jsonlines.complete(file)  # cuts off what a kill has left of a last line
        chosen = [row for row in ROWS if not only or row in only]
        name = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}-{uuid4().hex[:6]}"
        naive.quiet()
        try:
            with _progress(console) as progress:
                recorder = Recorder(file, name, model.device, repeats, progress)
                recorder.write("machine", "", **told)
                setting = Setting(model, spec, config, recorder, lengths, quick)
                for row in progress.track(chosen, description="rows"):
                    ROWS[row](setting)
                    recorder.end(row)
        except (KeyboardInterrupt, Exception):
            _written(out)
            _say_what_is_kept(console, out, name, chosen)
            raise
        return _written(out)


def _check_rows(only: Collection[str]) -> None:
    for row in sorted(set(only) - set(ROWS)):
        parts = row.replace(",", " ").split()
        if len(parts) > 1 and set(parts) <= set(ROWS):
            repeated = " ".join(f"--only {part}" for part in parts)
            raise QuickstudyError(f"--only takes one row; repeat it: {repeated}")
        raise QuickstudyError(f"unknown row {row}; choose from {', '.join(ROWS)}")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _written(out: Path) -> dict[str, Any]:
    """The summary of all that the folder holds, beside its figure."""
    summary = summarise(read(out / "records.jsonl"))
    files.write(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    figure.draw(summary, out / "speed.svg")
    return summary


def _say_what_is_kept(console: Console, out: Path, run: str, chosen: Collection[str]) -> None:
    whole = ended(read(out / "records.jsonl"))
    missing = [row for row in chosen if (run, row) not in whole]
    done = [row for row in chosen if row not in missing]
    again = " ".join(f"--only {row}" for row in missing)
    console.print(
        f"{out} keeps what was measured; to the end: {', '.join(done) or 'no row'}."
        f" To go on, give the same command with {again}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


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
