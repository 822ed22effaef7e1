"""Each path is forced, whatever the draft."""

from __future__ import annotations

from quickstudy.config import Config
from quickstudy.speed.setting import forced


def test_paths() -> None:
    config = Config.load(None, ["learning.rank=4", "awareness.estimator=rss-names"])
    plain, sure, unsure, every = (
        forced(config, path) for path in ("plain", "sure", "unsure", "every-step")
    )
    assert plain == config.model_copy(update={"method": "base"})
    thresholds = [each.awareness.threshold for each in (sure, unsure, every)]
    assert thresholds == [0, 1.01, 1.01]  # a certainty is 0 to 1, and unsure below this
    assert sure.awareness.estimator == unsure.awareness.estimator == config.awareness.estimator
    assert sure.learning == unsure.learning == config.learning
    assert every.learning == config.learning.model_copy(update={"stop_loss": 0})
    assert every.augmentation.informative_loss == 0 < config.augmentation.informative_loss
    assert {each.method for each in (sure, unsure, every)} == {config.method}
