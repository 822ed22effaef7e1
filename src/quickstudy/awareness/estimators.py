"""From a draft to a certainty, by the estimator that the settings name.

| estimator     | what competes                                      | cost beyond the draft       |
|---------------|----------------------------------------------------|-----------------------------|
| `margin`      | the two likeliest tokens at the least certain spot | none                        |
| `reference`   | margins against those on known-good requests       | none                        |
| `rss-names`   | the listed tools' names                            | one short batched pass      |
| `rss-choices` | the answers that the request lists                 | one short batched pass      |
| `rss-calls`   | whole answers forked from the draft                | a batch of partial answers  |
| `rss-samples` | sampled answers                                    | a batch of whole answers    |

Each estimator has its own file; `rss.py` has the formula, `merging.py` what counts as one answer.
"""

from __future__ import annotations

from quickstudy.awareness import forks, reference, samples
from quickstudy.awareness.choices import choices
from quickstudy.awareness.margin import token_margin
from quickstudy.awareness.merging import Scored, relative
from quickstudy.awareness.names import names
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Decoder, Draft
from quickstudy.model import LanguageModel
from quickstudy.types import Certainty


def check(model: LanguageModel, config: Config) -> None:
    """Reads what the estimator needs before the first request comes.

    Raises:
        ConfigError: if the calibration file is missing or was made for something else.
    """
    if config.method != "base" and config.awareness.estimator == "reference":
        reference.load(model.name, config)


def assess(decoder: Decoder, draft: Draft, config: Config, deadline: Deadline) -> Certainty:
    """The certainty of a greedy draft, by the configured estimator.

    Raises:
        BudgetSpent: if the deadline passes.
        ConfigError: as `check`.
    """
    settings, tools = config.awareness, draft.context.request.tools
    if settings.estimator == "margin":
        return token_margin(decoder, draft.generation)
    if settings.estimator == "reference":
        known = reference.load(decoder.model.name, config).reference
        return reference.deviation(decoder, draft, known, settings.deviations)
    deadline.check()
    if settings.estimator == "rss-names":
        return names(decoder, draft, settings.score)
    if settings.estimator == "rss-choices":
        return choices(decoder, draft, settings.score)
    return relative(_rivals(decoder, draft, config, deadline), tools, settings.score)


def _rivals(decoder: Decoder, draft: Draft, config: Config, deadline: Deadline) -> list[Scored]:
    if config.awareness.estimator == "rss-calls":
        return forks.forked(decoder, draft, config, deadline)
    drawn = samples.sampled(decoder, draft, config, deadline)
    return samples.scored(draft.generation, drawn)
