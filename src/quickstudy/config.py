"""Every setting, one documented model a stage; the one home of defaults.

Values come, later over earlier, from: the defaults here, a TOML file (`--config`), environment
variables (`QUICKSTUDY_LEARNING__RANK=8`), `--set learning.rank=8`, keyword arguments.
`quickstudy config` prints this file's descriptions; an unknown key fails and names the nearest.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quickstudy.errors import ConfigError

ENVIRONMENT_PREFIX = "QUICKSTUDY_"


class Stage(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Stage):
    """Which hardware runs the model, and how."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="auto: bfloat16 where the processor or GPU computes in it, else float32"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; none: torch decides")
    cache_dir: Path = Field(
        Path("~/.cache/quickstudy"),
        description="converted GGUF weights are kept here; its models/ is searched for GGUF files",
    )


class DecodingConfig(Stage):
    """How answers are decoded. Draft, practice and final answer are decoded alike."""

    constrained: bool = Field(
        True, description="calls are decoded under the tools' schemas; plain words stay possible"
    )
    max_new_tokens: int = Field(
        256, ge=1, description="an answer is cut off after this many tokens"
    )


class AwarenessConfig(Stage):
    """When the model counts as unsure."""

    estimator: Literal["margin", "rss-calls", "rss-names"] = Field(
        "margin",
        description="margin: p1 - p2 at the draft's least certain token (free); rss-calls: Relative"
        " Softmax Scoring over whole calls forked from the draft; rss-names: over the tools' names",
    )
    threshold: float = Field(
        0.9,
        ge=0,
        le=1.01,
        description="tau: practises only if certainty < threshold; 0 never, 1.01 always",
    )
    forks: int = Field(3, ge=1, description="rss-calls: rival calls forked from the draft")


class AugmentationConfig(Stage):
    """How practice examples are made."""

    strategy: Literal["auto", "substitution", "call-first"] = Field(
        "auto",
        description="auto: substitution, and call-first where it finds nothing to hold on to",
    )
    examples: int = Field(2, ge=1, description="K: practice examples wanted")
    attempts: int = Field(2, ge=1, description="call-first: examples written per example wanted")
    temperature: float = Field(0.8, gt=0, description="sampling temperature of written practice")
    informative_loss: float = Field(
        0.02, ge=0, description="nats a token; an example already answered with less is dropped"
    )


class LearningConfig(Stage):
    """How the throw-away adapter is trained."""

    mode: Literal["activated", "full"] = Field(
        "activated",
        description="activated: the adapter acts after the shared prefix (system prompt and tools),"
        " whose key/value cache is reused; full: on the whole sequence, the reference",
    )
    targets: Literal["all-linear", "attention"] = Field("all-linear", description="adapted layers")
    rank: int = Field(16, ge=1, description="LoRA rank r")
    alpha: float = Field(32, gt=0, description="LoRA alpha; updates are scaled by alpha / rank")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW learning rate")
    steps: int = Field(4, ge=1, description="gradient steps at most; all examples are one batch")
    stop_loss: float = Field(0.02, ge=0, description="nats a token; training stops below this loss")


class Config(Stage):
    """All settings."""

    method: Literal["tt-si", "base"] = Field(
        "tt-si", description="tt-si: practise when unsure; base: the draft is the answer"
    )
    seed: int = Field(
        0, description="of adapter initialisation and sampling; same seed, same answer"
    )
    budget_seconds: float | None = Field(
        None, gt=0, description="time a request may take before the draft is given; none: no limit"
    )
    model: ModelConfig = ModelConfig()
    decoding: DecodingConfig = DecodingConfig()
    awareness: AwarenessConfig = AwarenessConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    learning: LearningConfig = LearningConfig()

    @classmethod
    def load(
        cls, file: Path | None = None, overrides: Sequence[str] = (), **settings: Any
    ) -> Config:
        """Merges file, environment and overrides.

        Args:
            file: TOML with a table a stage.
            overrides: texts like `learning.rank=8`.
            settings: top-level settings such as `method="base"`; None means not given.

        Raises:
            ConfigError: names the key, its value and the nearest known key.
        """
        merged: dict[str, Any] = {}
        if file is not None:
            try:
                merged = tomllib.loads(file.read_text())
            except OSError as error:
                raise ConfigError(
                    f"cannot read the settings file {file}: {error.strerror}"
                ) from error
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"{file} is no TOML: {error}") from error
        for key, text in _environment():
            _place(merged, key, text)
        for override in overrides:
            key, separator, text = override.partition("=")
            if not separator:
                raise ConfigError(f"--set takes stage.field=value, got {override!r}")
            _place(merged, key.strip(), text.strip())
        merged.update({key: value for key, value in settings.items() if value is not None})
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from error


def settings(stage: type[Stage] = Config, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yields every setting as (dotted name, default, description)."""
    for name, field in stage.model_fields.items():
        if isinstance(field.default, Stage):
            yield from settings(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.default, field.description or ""


def _environment() -> Iterator[tuple[str, str]]:
    known = {name for name, _, _ in settings()}
    for variable, text in os.environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX):
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            if key in known:  # other tools may use the prefix for switches of their own
                yield key, text


def _place(merged: dict[str, Any], key: str, text: str) -> None:
    *tables, last = key.split(".")
    for table in tables:
        merged = merged.setdefault(table, {})
        if not isinstance(merged, dict):
            raise ConfigError(f"{key}: {table} is a setting, not a group of settings")
    merged[last] = None if text.lower() in ("none", "null") else text


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = [name for name, _, _ in settings()]
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            lines.append(f"unknown setting {key}{hint} (`quickstudy config` lists all)")
        else:
            lines.append(f"{key} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)


def as_mapping(config: Config) -> Mapping[str, Any]:
    """The settings as JSON values, for records."""
    return config.model_dump(mode="json")
