"""From drafts on known-good requests to reference margins and a threshold for each estimator.

Requests are taken for known-good as they come; where the right calls are known, only those whose
draft is right are, and the wrong ones tell the risk. tau is chosen in one of two ways:

* by trigger rate: this share of the requests is less certain than tau, and would practise;
* by risk: as many requests as possible are sure while (wrong + 1) / (sure + 1) <= risk. The 1 is
  the next request, counted as wrong: few requests then choose a careful tau, not a lucky one.

A known-good draft is compared with the margins of the other known-good drafts (leave one out).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby

from quickstudy import reader
from quickstudy.awareness.estimators import assess
from quickstudy.awareness.kinds import Kind
from quickstudy.awareness.margin import token_margin
from quickstudy.awareness.reference import Calibration, Margins, Reference, Threshold, positions
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Decoder, Draft
from quickstudy.errors import RequestError
from quickstudy.toolcalls import equal
from quickstudy.types import Message, Request, ToolCall

ALWAYS = 1.01  # a threshold that no certainty reaches
FEW = 20


@dataclass(frozen=True)
class Row:
    """A request, and the calls that answer it if they are known (none: no tool fits)."""

    request: Request
    expected: tuple[ToolCall, ...] | None


@dataclass(frozen=True)
class Observation:
    """What one draft showed; `certainties` by estimator, all but `reference`.

    That of `auto` is by whichever estimator it takes for the request: `margin` where it has tools.
    """

    positions: tuple[tuple[Kind, float], ...]
    certainties: Mapping[str, float]
    call_format: str | None
    right: bool | None

    @property
    def known_good(self) -> bool:
        return self.right is not False


def read_rows(text: str) -> list[Row]:
    """Reads requests in chat form; a row may carry `expected`, a list of calls.

    Raises:
        RequestError: names the first row that cannot be read.
    """
    rows, unknown = [], set[str]()
    for number, raw in reader.objects(text):
        request = reader.read_request(number, raw, unknown)
        if isinstance(request, reader.BadRequest):
            raise RequestError(f"row {number}: {request.error}")
        expected = raw.get("expected")
        if expected is not None:
            if not isinstance(expected, list):
                raise RequestError(f"row {number}: expected must be a list of calls")
            said = {"role": "assistant", "tool_calls": expected}
            expected = Message.parse(said, f"row {number}: expected").tool_calls
        rows.append(Row(request, expected))
    if not rows:
        raise RequestError('there is no request; give a line like {"messages": [...]} for each')
    if ignored := unknown - {"expected"}:
        warnings.warn(f"fields ignored: {', '.join(sorted(ignored))}", stacklevel=2)
    return rows


def observe(
    decoder: Decoder, draft: Draft, expected: Sequence[ToolCall] | None, config: Config
) -> Observation:
    """Weighs a draft: by margin, for `reference`, and by the configured estimator."""
    certainties = {"margin": token_margin(decoder, draft.generation).value}
    if config.awareness.estimator not in ("margin", "reference"):
        told = assess(decoder, draft, config, Deadline())
        certainties[config.awareness.estimator] = told.value
    tools = draft.context.request.tools
    return Observation(
        tuple(positions(decoder, draft)),
        certainties,
        draft.call_format,
        None if expected is None else equal(draft.reply.tool_calls, expected, tools),
    )


def calibrate(
    observed: Sequence[Observation],
    *,
    model: str,
    config: Config,
    trigger_rate: float | None = None,
    risk: float | None = None,
) -> Calibration:
    """Reference margins, and tau for each estimator, by one of the two goals.

    Raises:
        RequestError: if no draft is known to be good, or risk is asked for and none was graded.
    """
    good = [one for one in observed if one.known_good]
    if not good:
        raise RequestError(
            f"none of the {len(observed)} drafts is right, so there is nothing to compare with;"
            " check `expected`, or give requests that the model answers well"
        )
    if risk is not None and all(one.right is None for one in observed):
        raise RequestError(
            "a risk needs rows with the right calls: add `expected` to them, or choose by"
            " --trigger-rate"
        )
    if len(good) < FEW:
        warnings.warn(
            f"only {len(good)} known-good requests: the quantiles are coarse; 100 are better",
            stacklevel=2,
        )
    deviations = config.awareness.deviations
    reference = left_out(observed, deviations)
    certainties = {
        name: [one.certainties[name] for one in observed] for name in good[0].certainties
    }
    certainties["reference"] = reference
    right = [one.right for one in observed]
    thresholds = {}
    for name, values in certainties.items():
        tau = (
            tau_by_risk(values, right, risk)
            if risk is not None
            else tau_by_trigger_rate(values, 0.3 if trigger_rate is None else trigger_rate)
        )
        thresholds[name] = _told(float(f"{tau:.9g}"), values, right)
    margins = _by_kind(good)
    return Calibration(
        quickstudy=version("quickstudy"),
        model=model,
        constrained=config.decoding.constrained,
        call_formats=dict(Counter(one.call_format or "words" for one in observed)),
        requests=len(observed),
        known_good=len(good),
        deviations=deviations,
        margins={kind: Margins.of(some) for kind, some in margins.items()},
        thresholds=thresholds,
    )


def left_out(observed: Sequence[Observation], deviations: int) -> list[float]:
    """The `reference` certainty of each draft under the known-good margins of all the others."""
    good = [one for one in observed if one.known_good]
    whole = Reference.of(_by_kind(good))
    return [
        (
            Reference.of(_by_kind([other for other in good if other is not one]))
            if one.known_good
            else whole
        ).certainty(one.positions, deviations)
        for one in observed
    ]


def tau_by_trigger_rate(certainties: Sequence[float], rate: float) -> float:
    """tau under which the share `rate` of the certainties lies; equal ones stay together, sure."""
    ordered = sorted(certainties)
    below = round(rate * len(ordered))
    if below == len(ordered):
        return ALWAYS
    return (ordered[below - 1] + ordered[below]) / 2 if below else 0.0


def tau_by_risk(certainties: Sequence[float], right: Sequence[bool | None], risk: float) -> float:
    """The smallest tau with (wrong + 1) / (sure + 1) <= risk; ALWAYS if there is none."""
    graded = sorted(
        ((c, r) for c, r in zip(certainties, right, strict=True) if r is not None), reverse=True
    )
    groups = [
        (value, [r for _, r in same]) for value, same in groupby(graded, lambda pair: pair[0])
    ]
    tau, sure, wrong = ALWAYS, 0, 0
    for place, (value, rights) in enumerate(groups):
        sure += len(rights)
        wrong += rights.count(False)
        if (wrong + 1) / (sure + 1) <= risk:
            after = groups[place + 1][0] if place + 1 < len(groups) else None
            tau = 0.0 if after is None else (value + after) / 2
    return tau


def _told(tau: float, certainties: Sequence[float], right: Sequence[bool | None]) -> Threshold:
    sure = [r for c, r in zip(certainties, right, strict=True) if c >= tau]
    graded = [r for r in sure if r is not None]
    return Threshold(
        tau=tau,
        practised=1 - len(sure) / len(certainties),
        sure=len(graded) if graded else len(sure),
        wrong_and_sure=None if all(r is None for r in right) else graded.count(False),
    )


def _by_kind(observed: Sequence[Observation]) -> dict[Kind, list[float]]:
    margins: dict[Kind, list[float]] = {}
    for one in observed:
        for kind, margin in one.positions:
            margins.setdefault(kind, []).append(margin)
    return margins
