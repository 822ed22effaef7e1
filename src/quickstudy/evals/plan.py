"""What an evaluation is asked for, and whether it can be measured. Loads no model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.config import Config
from quickstudy.errors import ConfigError
from quickstudy.evals import provenance
from quickstudy.evals.benchmarks import BENCHMARKS
from quickstudy.evals.records import Run
from quickstudy.evals.task import Task, sample
from quickstudy.methods import Named, parse


@dataclass(frozen=True)
class Plan:
    """What is asked for; see `quickstudy eval --help`."""

    model: str
    data: Path
    out: Path
    benchmarks: Sequence[str]
    methods: Sequence[str]
    limit: int | None = None
    offset: int = 0
    seed: int = 0
    overrides: Sequence[str] = ()
    file: Path | None = None
    samples: int | None = None
    probe: bool = False


def chosen(names: Sequence[str]) -> list[Named]:
    """The methods in the order given, each once, base first: it costs no more than the draft."""
    parsed = [parse(name) for name in ("base", *names)]
    return list({method.name: method for method in parsed}.values())


def known(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in BENCHMARKS:
            near = difflib.get_close_matches(name, BENCHMARKS, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"there is no benchmark {name!r}{hint} (benchmarks: {', '.join(BENCHMARKS)})"
            )
    return list(dict.fromkeys(names))


def check(plan: Plan, methods: Sequence[Named], configs: Mapping[str, Config]) -> None:
    """Refuses what cannot be measured, before the minutes of work."""
    asked = {method.parent for method in methods}
    if "majority" in asked and plan.samples is None and "tt-si" not in asked:
        raise ConfigError(
            "majority draws as many samples as the seconds of tt-si buy: add --method tt-si, or"
            " say how many with --samples N"
        )
    if "tt-d" in asked and configs["tt-d"].teacher.model is None:
        raise ConfigError("tt-d needs a teacher: add --teacher MODEL or --teacher URL#MODEL")
    trained = asked & {"sft", "sft-single", "oracle"}
    if trained and "abstain" in plan.benchmarks:
        raise ConfigError(
            f"{min(trained)} on abstain would be trained to call a tool on its very rows; run it on"
            " the other benchmarks"
        )


def tasks_of(plan: Plan, name: str) -> list[Task]:
    tasks = sample(BENCHMARKS[name].load(plan.data), plan.limit, plan.seed, plan.offset)
    if not tasks:
        raise ConfigError(f"--offset {plan.offset} leaves no row of {name}")
    return tasks


def described(
    plan: Plan, methods: Sequence[Named], configs: Mapping[str, Config], benchmarks: Sequence[str]
) -> Run:
    return Run(
        model=provenance.model_facts(plan.model, configs["base"]),
        seed=plan.seed,
        settings={m.name: _settings(configs[m.parent], m.repaired) for m in methods},
        data={
            name: provenance.data_facts(BENCHMARKS[name], plan.data, plan.offset)
            for name in benchmarks
        },
        samples=plan.samples,
        versions=provenance.versions(),
        machine={},
    )


def _settings(config: Config, repaired: bool) -> dict[str, Any]:
    """All settings, less what says more of this machine than of the run."""
    told = config.model_dump(mode="json", exclude={"model": {"cache_dir"}, "serve": True})
    told["repair"] = repaired or config.repair
    if told["teacher"]["model"] and not told["teacher"]["url"]:
        told["teacher"]["model"] = Path(told["teacher"]["model"]).name
    return told
