"""From a draft to a certainty, by the estimator that the settings name.

| estimator     | what competes                                      | cost beyond the draft       |
|---------------|----------------------------------------------------|-----------------------------|
| `auto`        | by the request: see `chosen`                       | that of the one it takes    |
| `margin`      | the two likeliest tokens at the least certain spot | none                        |
| `reference`   | margins against those on known-good requests       | none                        |
| `rss-names`   | the listed tools' names                            | one short batched pass      |
| `rss-choices` | the answers that the request lists                 | one short batched pass      |
| `rss-calls`   | whole answers forked from the draft                | a batch of partial answers  |
| `rss-samples` | sampled answers                                    | a batch of whole answers    |

`auto` takes what each kind of request can tell. Choices are all the answers there can be, so RSS
is exact. In calls one token decides, and the margin sees it for nothing. In prose no one token
does, and most low margins are only wording: there the share of samples that come to the same
answer is taken (`samples.py` says why not their probability).

Each estimator has its own file; `rss.py` has the formula, `merging.py` what counts as one answer.
"""

from __future__ import annotations

from quickstudy.awareness import forks, reference, samples
from quickstudy.awareness.choices import choices
from quickstudy.awareness.margin import token_margin
from quickstudy.awareness.merging import relative
from quickstudy.awareness.names import names
from quickstudy.config import THRESHOLD, AwarenessConfig, Config
from quickstudy.decoding import Deadline, Decoder, Draft
from quickstudy.model import LanguageModel
from quickstudy.types import Certainty, Request


def check(model: LanguageModel, config: Config) -> float:
    """Reads what the estimator needs before the first request comes.

    Returns:
        tau: the threshold that is set; else for `reference` that of its file; else THRESHOLD.

    Raises:
        ConfigError: if the calibration file is missing or was made for something else.
    """
    tau = THRESHOLD
    if config.method != "base" and config.awareness.estimator == "reference":
        tau = reference.load(model.name, config).tau
    return tau if config.awareness.threshold is None else config.awareness.threshold


def chosen(settings: AwarenessConfig, request: Request) -> AwarenessConfig:
    """The settings with the estimator that `auto` takes for this request."""
    if settings.estimator != "auto":
        return settings
    if request.choices:
        return settings.model_copy(update={"estimator": "rss-choices"})
    if request.tools:
        return settings.model_copy(update={"estimator": "margin"})
    return settings.model_copy(update={"estimator": "rss-samples", "score": "votes"})


def assess(decoder: Decoder, draft: Draft, config: Config, deadline: Deadline) -> Certainty:
    """The certainty of a greedy draft, by the configured estimator.

    Raises:
        BudgetSpent: if the deadline passes.
        ConfigError: as `check`.
    """
    request = draft.context.request
    settings = chosen(config.awareness, request)
    if settings.estimator == "margin":
        return token_margin(decoder, draft.generation)
    if settings.estimator == "reference":
        known = reference.load(decoder.model.name, config).reference
        return reference.deviation(decoder, draft, known, settings.deviations)
    deadline.check()
    if settings.estimator == "rss-samples":
        drawn = samples.sampled(decoder, draft, config, deadline)
        return relative(samples.scored(draft.generation, drawn), request.tools, settings.score)
    assert settings.score != "votes"  # Config refuses it
    if settings.estimator == "rss-names":
        return names(decoder, draft, settings.score)
    if settings.estimator == "rss-choices":
        return choices(decoder, draft, settings.score)
    rivals = forks.forked(decoder, draft, config, deadline)
    return relative(rivals, request.tools, settings.score)
