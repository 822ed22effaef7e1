"""The folder of a run: what it is (`run.json`), what is done (`records.jsonl`), `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from quickstudy import files, jsonlines
from quickstudy.errors import ConfigError
from quickstudy.evals import provenance
from quickstudy.evals.benchmarks import BENCHMARKS
from quickstudy.evals.records import Machine, Record, Run, Summary
from quickstudy.evals.summary import summarise
from quickstudy.model import LanguageModel


class Ledger:
    """The folder of a run: what it is, what is done."""

    def __init__(
        self,
        out: Path,
        now: Run,
    ) -> None:
        """Goes on with the run that the folder holds.

        Raises:
            ConfigError: if that is another than `now`.
        """
        self.out = out
        self.run = self._merged(now)
        self._save()
        lines = jsonlines.complete(self.out / "records.jsonl")
        self.records = {r.key: r for r in map(Record.model_validate, lines)}

    def add(self, record: Record) -> None:
        jsonlines.append(self.out / "records.jsonl", record.model_dump())
        self.records[record.key] = record

    def loaded(self, model: LanguageModel) -> None:
        """Notes what only the loaded model tells."""
        dtype = str(model.dtype).removeprefix("torch.")
        if self.run.machine and self.run.model.dtype != dtype:
            raise ConfigError(
                f"{self.out} holds a run in {self.run.model.dtype} and the model now computes in"
                f" {dtype}; set model.dtype={self.run.model.dtype}, or name another --out"
            )
        self.update(
            model=self.run.model.model_copy(update={"dtype": dtype}),
            **_machines(provenance.machine(model.device), self.run),
        )

    def update(self, **fields: Any) -> None:
        self.run = self.run.model_copy(update=fields)
        self._save()

    def summarised(self, data: Path) -> Summary:
        names = list(self.run.data)
        tasks = {name: {task.id: task for task in BENCHMARKS[name].load(data)} for name in names}
        done = [r for r in self.records.values() if r.method in self.run.settings]
        summary = summarise(self.run, done, tasks, BENCHMARKS)
        files.write(self.out / "summary.json", summary.model_dump_json(indent=1) + "\n")
        return summary

    def _merged(self, now: Run) -> Run:
        path = self.out / "run.json"
        if not path.exists():
            if (self.out / "records.jsonl").exists():
                raise ConfigError(f"{self.out} has records and no run.json; name another --out")
            return now
        try:
            before = Run.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ConfigError(f"{path} is no run of this version; name another --out") from error
        for what, old, new in _differences(before, now):
            raise ConfigError(
                f"{self.out} holds a run with {what} = {old!r}, and now it is {new!r}; set it back,"
                " or name another --out"
            )
        return before.model_copy(
            update={
                "settings": {**before.settings, **now.settings},
                "data": {**before.data, **now.data},
                "samples": before.samples or now.samples,
                **_machines(before.machine or now.machine, before, now),
            }
        )

    def _save(self) -> None:
        files.write(self.out / "run.json", self.run.model_dump_json(indent=1) + "\n")


def _machines(main: Machine, *runs: Run) -> dict[str, Any]:
    """Every machine that runs were made on, each once, `main` as the first."""
    told = [machine for run in runs for machine in (run.machine, *run.other_machines)]
    others: list[Machine] = []
    for machine in told:
        if machine and machine != main and machine not in others:
            others.append(machine)
    return {"machine": main, "other_machines": tuple(others)}


def _differences(before: Run, now: Run) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for what in ("name", "sha256"):
        found.append((f"model {what}", getattr(before.model, what), getattr(now.model, what)))
    found.append(("seed", before.seed, now.seed))
    if None not in (before.samples, now.samples):
        found.append(("samples", before.samples, now.samples))
    for name in filter(before.data.__contains__, now.data):
        old_data, new_data = before.data[name], now.data[name]
        found.append((f"data of {name}", old_data.sha256, new_data.sha256))
        found.append((f"offset of {name}", old_data.offset, new_data.offset))
    for name in filter(before.settings.__contains__, now.settings):
        old, new = _flat(before.settings[name]), _flat(now.settings[name])
        for key in sorted(old.keys() | new.keys()):
            found.append((f"{key} of {name}", old.get(key), new.get(key)))
    return [(what, old, new) for what, old, new in found if old != new]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
