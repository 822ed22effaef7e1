"""A run's summary in MLflow (extra `mlflow`): one MLflow run a method and benchmark.

Parameters are the settings, what the run was made with and what it was compared with; metrics the
numbers of the summary; artifacts `summary.json`, `run.json` and the records. Runs of one `--out`
folder carry its name as the tag `quickstudy.run`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from quickstudy.errors import ConfigError, QuickstudyError
from quickstudy.evals.records import MethodSummary, Summary

EXPERIMENT = "quickstudy"
_ARTIFACTS = ("summary.json", "run.json", "records.jsonl")


def check() -> ModuleType:
    """Raises ConfigError if MLflow is not installed."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # it would ask for git at import
    try:
        import mlflow
    except ImportError as error:
        raise ConfigError(
            "--mlflow needs MLflow; type `pip install 'quickstudy[mlflow]'`"
        ) from error
    module: ModuleType = mlflow
    return module


def log(summary: Summary, folder: Path, uri: str) -> None:
    """Logs every method of every benchmark.

    Raises:
        QuickstudyError: if MLflow refuses, with its reason; the summary itself is written by then.
    """
    mlflow = check()
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        for benchmark, methods in summary.benchmarks.items():
            for method, told in methods.items():
                tags = {"quickstudy.run": folder.name}
                name = f"{benchmark} {method}"
                run = client.create_run(number, tags=tags, run_name=name).info.run_id
                params = dict(_params(summary, benchmark, method))
                client.log_batch(
                    run,
                    params=[mlflow.entities.Param(key, value) for key, value in params.items()],
                    metrics=[
                        mlflow.entities.Metric(key, value, 0, 0) for key, value in _metrics(told)
                    ],
                )
                for file in _ARTIFACTS:
                    if (folder / file).is_file():
                        client.log_artifact(run, str(folder / file))
                client.set_terminated(run)
    except Exception as error:  # whatever its stores raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise QuickstudyError(
            f"cannot log to MLflow at {uri}: {reason}; the summary is in {folder}, and the same"
            " command with another --mlflow logs it without running anything again"
        ) from error


def _params(summary: Summary, benchmark: str, method: str) -> Iterator[tuple[str, str]]:
    yield "benchmark", benchmark
    yield "method", method
    yield "seed", str(summary.seed)
    yield "best_free", str(summary.best_free[benchmark])
    parts = {
        "model": summary.model.model_dump(),
        "data": summary.data[benchmark].model_dump(),
        "settings": summary.settings[method],
        "versions": summary.versions,
        "machine": summary.machine,
    }
    yield from ((key, str(value)) for key, value in _flat(parts))


def _metrics(told: MethodSummary) -> Iterator[tuple[str, float]]:
    """Every number of a method's summary by dotted name; intervals as `.low` and `.high`."""
    fields = told.model_dump(exclude={"fallbacks"})
    for key, value in _flat(fields):
        if isinstance(value, tuple):
            yield from zip((f"{key}.low", f"{key}.high"), value, strict=True)
        elif value is not None:
            yield key, float(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}".replace(" ", "_")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
