"""Reference-calibrated RSS: is the draft less sure than drafts on known-good requests are?

After the second account of the paper (arXiv 2510.07841): the margin p1 - p2 at each position is
compared with a reference distribution, and the input is uncertain if several positions deviate.
Costs nothing beyond the draft. Formulas, for a draft with choices i = 1..T of kinds k_i:

    p_i = (1 + #{reference margins of kind k_i that are <= margin_i}) / (1 + n_k)
    c   = P(Binomial(T, p_(m)) >= m),    p_(m) the m-th smallest p_i, m = min(deviations, T)

p_i is the conformal p-value: among known-good margins of its kind, how rare is one so small.
c asks how often m of T positions of a known-good draft are all as rare as that, so a long draft
is not less certain for being long. Were positions independent, c would be uniform on known-good
requests, and a threshold of 0.1 would practise on a tenth of them. They are not quite, so
`quickstudy calibrate` chooses the threshold. A kind without margins is compared with all kinds.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from scipy.special import bdtrc

from quickstudy.awareness.kinds import Kind, choice_kinds
from quickstudy.awareness.margin import ways
from quickstudy.config import Config
from quickstudy.decoding import Decoder, Draft
from quickstudy.errors import ConfigError
from quickstudy.types import Certainty

KEPT = 1000  # order statistics of a kind in the file
DIGITS = 6  # of a margin; those next to 1 differ by less, and say nothing by it

CREATE = (
    "make one with `quickstudy calibrate --requests good.jsonl --model {model} --out {path}{set}`"
)


class Margins(BaseModel):
    """`n` margins of one kind, told by at most KEPT of their order statistics, evenly spaced."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    n: int = Field(ge=1)
    quantiles: tuple[float, ...] = Field(min_length=1)

    @classmethod
    def of(cls, margins: Sequence[float]) -> Margins:
        ordered = sorted(round(margin, DIGITS) for margin in margins)
        if (n := len(ordered)) > KEPT:
            ordered = [ordered[round(i * (n - 1) / (KEPT - 1))] for i in range(KEPT)]
        return cls(n=n, quantiles=tuple(ordered))

    def at_most(self, margin: float) -> float:
        """How many of the n are <= margin."""
        place = bisect_right(self.quantiles, round(margin, DIGITS))
        return self.n * place / len(self.quantiles)


@dataclass(frozen=True)
class Reference:
    """Known-good margins by kind."""

    margins: Mapping[Kind, Margins]

    @classmethod
    def of(cls, margins: Mapping[Kind, Sequence[float]]) -> Reference:
        return cls({kind: Margins.of(some) for kind, some in margins.items() if some})

    def p_value(self, kind: Kind, margin: float) -> float:
        """p_i as above, in (0, 1]; 1 if there is no reference at all."""
        known = [self.margins[kind]] if kind in self.margins else list(self.margins.values())
        below = sum(some.at_most(margin) for some in known)
        return (1 + below) / (1 + sum(some.n for some in known))

    def certainty(self, positions: Sequence[tuple[Kind, float]], deviations: int) -> float:
        """c as above, in [0, 1], for (kind, margin) of each choice; 1 without choices."""
        if not positions:
            return 1.0
        wanted = min(deviations, len(positions))
        smallest = sorted(self.p_value(*position) for position in positions)[wanted - 1]
        return float(bdtrc(wanted - 1, len(positions), smallest))


class Threshold(BaseModel):
    """The tau chosen for an estimator, and what it did on the requests it was chosen on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tau: float
    practised: float  # share of requests
    sure: int
    wrong_and_sure: int | None  # None: the right answers are not known


class Calibration(BaseModel):
    """What `quickstudy calibrate` writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    quickstudy: str
    model: str
    constrained: bool
    call_formats: dict[str, int]  # how many drafts were written in which
    requests: int
    known_good: int
    deviations: int
    margins: dict[Kind, Margins]
    thresholds: dict[str, Threshold]

    @field_validator("thresholds")
    @classmethod
    def _has_its_own(cls, thresholds: dict[str, Threshold]) -> dict[str, Threshold]:
        if "reference" not in thresholds:
            raise ValueError("no threshold for reference")
        return thresholds

    @property
    def tau(self) -> float:
        """The threshold for `reference` itself."""
        return self.thresholds["reference"].tau

    @cached_property
    def reference(self) -> Reference:
        return Reference(self.margins)

    def dumps(self) -> str:
        """JSON with a line a top-level key."""
        lines = [
            f"  {json.dumps(key)}: {json.dumps(value)}"
            for key, value in self.model_dump(mode="json").items()
        ]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def load(model: str, config: Config) -> Calibration:
    """Reads the calibration file, which must be of this model, its decoding and deviations.

    Raises:
        ConfigError: if there is none or it is another's; says what to type.
    """
    path = config.awareness.reference
    create = CREATE.format(model=model, path=path or "calibration.json", set="")
    if path is None:
        raise ConfigError(
            f"awareness.estimator=reference needs a calibration file: {create}, and name it with"
            " --set awareness.reference=calibration.json"
        )
    try:
        stamp = path.expanduser().stat().st_mtime_ns
        calibration = _parse(path.expanduser(), stamp)
    except FileNotFoundError as error:
        raise ConfigError(f"awareness.reference: there is no file {path}; {create}") from error
    except OSError as error:
        raise ConfigError(f"awareness.reference: cannot read {path}: {error.strerror}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"awareness.reference: {path} is no calibration file of this version; {create}"
        ) from error
    if calibration.model != model:
        raise ConfigError(
            f"awareness.reference: {path} was made for {calibration.model}, and the model is"
            f" {model}, whose margins are others; {create}"
        )
    for name, then, now in (
        ("decoding.constrained", calibration.constrained, config.decoding.constrained),
        ("awareness.deviations", calibration.deviations, config.awareness.deviations),
    ):
        if then != now:
            setting = f" --set {name}={_told(now)}"
            raise ConfigError(
                f"awareness.reference: {path} was made with {name}={_told(then)}; set that again,"
                f" or {CREATE.format(model=model, path=path, set=setting)}"
            )
    return calibration


def _told(value: int | bool) -> str:
    return str(value).lower()


@lru_cache(maxsize=8)
def _parse(path: Path, stamp: int) -> Calibration:
    """`stamp`: the file's time of change, so that a new file is read anew."""
    return Calibration.model_validate_json(path.read_text(encoding="utf-8"))


def positions(decoder: Decoder, draft: Draft) -> list[tuple[Kind, float]]:
    """Kind and margin of each of the draft's choices."""
    said = draft.generation
    kinds = choice_kinds(decoder.model.decode, said, draft.reply.tool_calls)
    return [(kind, choice.margin) for kind, choice in zip(kinds, said.choices, strict=True)]


def deviation(decoder: Decoder, draft: Draft, reference: Reference, deviations: int) -> Certainty:
    """c of a draft; candidates: either way on at the position that deviates most."""
    told = positions(decoder, draft)
    if not told:
        return Certainty(1.0)
    rarest = min(range(len(told)), key=lambda i: reference.p_value(*told[i]))
    candidates = ways(decoder, draft.generation, draft.generation.choices[rarest])
    return Certainty(reference.certainty(told, deviations), candidates)
