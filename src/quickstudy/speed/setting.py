"""What every row of the benchmark is given."""

from __future__ import annotations

from dataclasses import dataclass, field

from quickstudy.config import Config
from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.speed.measure import Recorder
from quickstudy.speed.workload import Scenario


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

    def improver(self, path: str) -> Improver:
        """plain: no gate; sure: the gate lets every draft pass; unsure: it lets none."""
        if path not in self._improvers:
            self._improvers[path] = Improver(self.model, forced(self.config, path))
        return self._improvers[path]


def forced(config: Config, path: str) -> Config:
    if path == "plain":
        return config.model_copy(update={"method": "base"})
    threshold = {"sure": 0.0, "unsure": 1.01}[path]
    awareness = config.awareness.model_copy(update={"threshold": threshold})
    return config.model_copy(update={"awareness": awareness})
