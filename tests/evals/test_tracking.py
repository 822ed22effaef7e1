"""The summary in MLflow, in a real store in a folder; without MLflow a clear word."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from quickstudy.errors import ConfigError, QuickstudyError
from quickstudy.evals import tracking
from quickstudy.evals.records import (
    DataFacts,
    Delta,
    MethodSummary,
    ModelFacts,
    Share,
    Summary,
)

needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None,
    reason="MLflow is not here: pip install 'quickstudy[mlflow]'",
)


def summary() -> Summary:
    method = MethodSummary(
        n=4,
        unscored=1,
        accuracy=0.5,
        ci95=(0.25, 0.75),
        delta_vs_base=Delta(mean=0.1, ci95=(-0.1, 0.3), mcnemar_p=0.5, fixed=2, broken=1),
        delta_vs_best_free=None,
        errors={"no call": 3},
        official={"hammer_f1_name": 0.9},
        verbatim=Share(n=4, accuracy=0.5, ci95=(0.25, 0.75)),
        not_verbatim=Share(n=0, accuracy=None, ci95=None),
        trigger_rate=0.25,
        practised=1,
        examples_trained=2,
        gradient_steps=4,
        seconds=1.5,
        seconds_median=1.0,
        seconds_by_stage={"draft": 1.0},
        peak_rss_mb=None,
        fallbacks={"the time budget is spent": 1},
    )
    return Summary(
        model=ModelFacts(name="m", quantisation="Q4_K_M", sha256="0", licence="mit", dtype="f"),
        seed=7,
        benchmarks={"sealtool": {"base": method, "tt-si+repair": method}},
        best_free={"sealtool": "base"},
        samples=None,
        data={"sealtool": DataFacts(sha256="1", rows=294)},
        settings={"base": {"learning": {"rank": 16}}, "tt-si+repair": {"learning": {"rank": 8}}},
        versions={"python": "3.11"},
        machine={"cores": 2},
    )


@needs_mlflow
@pytest.mark.filterwarnings("ignore")
def test_a_run_for_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)  # artifacts of a database go under the working folder
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    folder = tmp_path / "run7"
    folder.mkdir()
    (folder / "summary.json").write_text("{}")
    tracking.log(summary(), folder, uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"sealtool base", "sealtool tt-si+repair"}
    run: Any = runs["sealtool tt-si+repair"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["quickstudy.run"] == "run7"
    params, metrics = run.data.params, run.data.metrics
    assert (params["method"], params["settings.learning.rank"]) == ("tt-si+repair", "8")
    assert (params["model.quantisation"], params["data.rows"]) == ("Q4_K_M", "294")
    assert (metrics["accuracy"], metrics["ci95.low"], metrics["ci95.high"]) == (0.5, 0.25, 0.75)
    assert metrics["delta_vs_base.mcnemar_p"] == 0.5
    assert metrics["errors.no_call"] == 3
    assert metrics["official.hammer_f1_name"] == 0.9
    assert "peak_rss_mb" not in metrics
    names = [artifact.path for artifact in client.list_artifacts(run.info.run_id)]
    assert names == ["summary.json"]


@needs_mlflow
@pytest.mark.filterwarnings("ignore")
def test_a_store_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QuickstudyError, match="the same command with another --mlflow"):
        tracking.log(summary(), tmp_path, f"sqlite:///{tmp_path / 'file' / 'no.db'}")


def test_without_mlflow_there_is_a_word_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install 'quickstudy\[mlflow\]'"):
        tracking.check()
