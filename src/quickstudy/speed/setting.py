"""What every row of the benchmark is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quickstudy.config import Config
from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.speed.measure import Recorder
from quickstudy.speed.workload import Scenario
from quickstudy.types import Request

ASKED = 3


@dataclass
class Setting:
    """One model and one machine, the settings all rows share, and where results go.

    `spec` is how the model is named, for the processes that measure memory; `lengths` are the
    tool lists of each prefix length that the model can read, shortest first.
    """

    model: LanguageModel
    spec: str
    config: Config
    recorder: Recorder
    lengths: list[Scenario]
    quick: bool
    _improvers: dict[str, Improver] = field(default_factory=dict)

    def asked(self, scenario: Scenario) -> Sequence[Request]:
        """Requests that rows `whole` and `decode` ask, each the same in every round."""
        return scenario.requests[: 1 if self.quick else ASKED]

    def improver(self, path: str) -> Improver:
        """An improver that takes this path; see `forced`."""
        if path not in self._improvers:
            self._improvers[path] = Improver(self.model, forced(self.config, path))
        return self._improvers[path]


def forced(config: Config, path: str) -> Config:
    """The settings under which every request takes a path.

    plain: no gate; sure: the gate lets every draft pass; unsure: it lets none; every-step: nor
    does practice stop early, or leave out an example that the model knows.
    """
    if path == "plain":
        return config.model_copy(update={"method": "base"})
    threshold = {"sure": 0.0, "unsure": 1.01, "every-step": 1.01}[path]
    changed: dict[str, Any] = {
        "awareness": config.awareness.model_copy(update={"threshold": threshold})
    }
    if path == "every-step":
        changed["learning"] = config.learning.model_copy(update={"stop_loss": 0})
        changed["augmentation"] = config.augmentation.model_copy(update={"informative_loss": 0})
    return config.model_copy(update=changed)
