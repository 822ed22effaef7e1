"""Every setting, one documented model a stage; the one home of defaults.

Values come, later over earlier, from: the defaults here, a TOML file (`--config`), environment
variables (`QUICKSTUDY_LEARNING__RANK=8`), `--set learning.rank=8`, keyword arguments.
`quickstudy config` prints this file's descriptions; an unknown key fails and names the nearest.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from quickstudy.errors import ConfigError


class Stage(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _says_something(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():  # as a path it would be this folder
            raise ValueError("it is empty; give a value, or leave it out")
        return value


class ModelConfig(Stage):
    """Which hardware runs the model, and how."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="auto: bfloat16 where the processor or GPU computes in it, else float32"
    )
    decoding_weights: Literal["auto", "int8", "own"] = Field(
        "auto",
        description="of passes over few tokens on a CPU; int8: a copy that takes half as much"
        " reading and half as much memory again; auto: where the model computes in bfloat16, that"
        " and a copy of all but the output matrix ordered for matrix units; own: no copies",
    )
    prefix_cache: int = Field(
        8192,
        ge=0,
        description="tokens of shared prefixes (system prompt and tools) kept for requests to come,"
        " least recently used out first; 0: none",
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; none: torch decides")
    cache_dir: Path = Field(
        Path("~/.cache/quickstudy"),
        description="converted GGUF weights are kept here; its models/ is searched for GGUF files",
    )

    @field_validator("cache_dir")
    @classmethod
    def _has_a_home(cls, path: Path) -> Path:
        try:
            path.expanduser()
        except RuntimeError as error:
            raise ValueError("there is no such home folder; give the whole path") from error
        return path


class DecodingConfig(Stage):
    """How answers are decoded. Draft, practice and final answer are decoded alike."""

    constrained: bool = Field(
        True, description="calls are decoded under the tools' schemas; plain words stay possible"
    )
    max_calls: int = Field(8, ge=1, description="calls in one answer at most, when constrained")
    max_new_tokens: int = Field(
        256, ge=1, description="an answer is cut off after this many tokens"
    )
    thinking: bool = Field(
        False, description="asks models that can reason (<think>) to do so; counts as new tokens"
    )


THRESHOLD = 0.8


class AwarenessConfig(Stage):
    """When the model counts as unsure."""

    estimator: Literal[
        "auto", "margin", "reference", "rss-names", "rss-choices", "rss-calls", "rss-samples"
    ] = Field(
        "auto",
        description="auto: rss-choices where the request lists choices, margin where it lists"
        " tools, else rss-samples by votes; margin: p1 - p2 at the draft's least certain token"
        " (free); reference: the draft's margins against those on known-good requests (free; see"
        " reference). Relative"
        " Softmax Scoring: rss-names over the tools' names, rss-choices over the answers that the"
        " request lists (margin where it lists none), rss-calls over answers forked from the"
        " draft, rss-samples over sampled answers",
    )
    threshold: float | None = Field(
        None,
        ge=0,
        le=1.01,
        description="tau: practises only if certainty < threshold; 0 never, 1.01 always; none:"
        f" {THRESHOLD}, and with estimator reference the one that its file gives for it",
    )
    reconsider: bool = Field(
        True,
        description="reads an unsure request from the tools' side as well: the draft gives way to"
        " a call of another tool that fits better, words to a call that finds what it requires, a"
        " call that makes something up to one without it, or to a question if it is required",
    )
    score: Literal["sum", "mean", "votes"] = Field(
        "sum",
        description="rss: how a candidate is weighed; its log-likelihood, as sum or per-token"
        " mean; votes (rss-samples): how often it was drawn",
    )
    forks: int = Field(3, ge=1, description="rss-calls: rival answers forked from the draft")
    samples: int = Field(
        4, ge=1, description="rss-samples, so auto too: answers sampled beside the draft"
    )
    temperature: float = Field(
        1.0, gt=0, description="rss-samples, so auto too: sampling temperature"
    )
    reference: Path | None = Field(
        None, description="reference: the file that `quickstudy calibrate` wrote"
    )
    deviations: int = Field(
        2, ge=1, description="reference: m, unsure if the m least usual positions are too unusual"
    )


class AugmentationConfig(Stage):
    """How practice examples are made."""

    strategy: Literal["auto", "substitution", "call-first", "question-answer"] = Field(
        "auto",
        description="auto: substitution, and call-first where it finds nothing to hold on to;"
        " question-answer: request and call written at once, the paper's way",
    )
    examples: int = Field(2, ge=1, description="K: practice examples wanted")
    attempts: int = Field(2, ge=1, description="examples written per example wanted, where one is")
    samples: int = Field(
        3, ge=1, description="plain questions: answers sampled to each, most of which must agree"
    )
    temperature: float = Field(0.8, gt=0, description="sampling temperature of written practice")
    verify: Literal["all", "form"] = Field(
        "all",
        description="all: each value must stand in its request, and more; form: a valid call of a"
        " listed tool is enough (question-answer only)",
    )
    no_tool: bool = Field(
        True,
        description="adds a request that no listed tool serves and the model rightly answers in"
        " words, so that practice does not teach to call always",
    )
    informative_loss: float = Field(
        0.02, ge=0, description="nats a token; an example already answered with less is dropped"
    )
    memory: Path | None = Field(
        None,
        description="a folder where verified examples are kept, so that a request seen before"
        " costs no synthesis; none: nothing is kept",
    )
    memory_megabytes: int = Field(
        256, ge=1, description="size of that folder at most; least recently used examples go first"
    )


class TeacherConfig(Stage):
    """Who writes practice in test-time distillation, and how long it may take."""

    url: str | None = Field(
        None,
        description="base URL of an OpenAI-compatible server, http://127.0.0.1:8000/v1;"
        " none: the teacher is a local model",
    )
    model: str | None = Field(
        None,
        description="its name at that URL; with no url what --model takes: a hub id, a folder,"
        " a GGUF file, a name that `quickstudy models` lists",
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        description="environment variable that holds the key for the URL; local servers need none",
    )
    timeout: float = Field(
        60.0, gt=0, description="seconds one answer of the URL may take, retries included"
    )
    retries: int = Field(2, ge=0, description="further tries after a connection or server error")
    max_tokens: int = Field(
        2048, ge=1, description="tokens of one answer of the URL, reasoning included"
    )
    fallback: Literal["self", "draft"] = Field(
        "self",
        description="if the teacher fails: self, the model teaches itself; draft, the draft stands",
    )

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("it takes the name of an environment variable, not the key itself")
        return name

    @field_validator("url")
    @classmethod
    def _holds_no_password(cls, url: str | None) -> str | None:
        if url and "@" in url:  # settings are shown, in reports too
            raise ValueError("it holds a user name or a password; use teacher.api_key_env instead")
        return url


class LearningConfig(Stage):
    """How the throw-away adapter is trained."""

    mode: Literal["activated", "full"] = Field(
        "activated",
        description="activated: the adapter acts after the shared prefix (system prompt and tools),"
        " whose key/value cache is reused; full: on the whole sequence, the reference",
    )
    targets: Literal["all-linear", "attention"] = Field("all-linear", description="adapted layers")
    upper_layers: float = Field(
        0.33,
        gt=0,
        le=1,
        description="share of the layers, from the top, that gets adapters; what the lower ones"
        " make of the practice is computed once",
    )
    rank: int = Field(16, ge=1, description="LoRA rank r")
    alpha: float = Field(32, gt=0, description="LoRA alpha; updates are scaled by alpha / rank")
    learning_rate: float = Field(6e-4, gt=0, description="AdamW learning rate, at its highest")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate; cosine: falls to 0 after the last step"
    )
    warmup: float = Field(
        0, ge=0, le=1, description="share of the steps in which the rate rises from 0, linearly"
    )
    epochs: int = Field(2, ge=1, description="passes over the examples at most")
    batch_size: int | None = Field(
        None, ge=1, description="examples a gradient step; none: all, so that a pass is a step"
    )
    stop_loss: float = Field(
        0.15, ge=0, description="nats a token; an epoch with no loss above it is the last one"
    )
    keep_stated: bool = Field(
        True,
        description="put back what the draft took from the request where the practised answer has"
        " lost it",
    )


class KeyConfig(Stage):
    """One client's key, as `quickstudy serve --new-key NAME` prints it."""

    name: str = Field(max_length=64, description="who uses it, for logs and metrics")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the key, in hex")
    requests_per_minute: float | None = Field(
        None, gt=0, description="requests it may send a minute; none: no limit"
    )
    practice_seconds_per_hour: float | None = Field(
        None,
        ge=0,
        description="seconds of practice an hour; used up, the drafts are its answers; none: no"
        " limit",
    )


class ServeConfig(Stage):
    """The server: where it listens, who may ask, and how much."""

    host: str = Field("127.0.0.1", description="address to listen at; 0.0.0.0: all")
    port: int = Field(8000, ge=0, le=65535, description="port to listen at; 0: any that is free")
    name: str | None = Field(
        None, description="the model's name in the API; none: that of --model, without folders"
    )
    queue: int = Field(
        128, ge=1, description="requests waiting or in work at most; over it HTTP 429"
    )
    practice_queue: int = Field(
        32,
        ge=1,
        description="unsure requests that may wait for practice; over it the draft is the answer",
    )
    practise_together: int = Field(
        4, ge=1, description="unsure requests that practise side by side at most; 1: each alone"
    )
    decode_together: int = Field(
        8, ge=1, description="answers that are decoded side by side at most; 1: each alone"
    )
    timeout: float = Field(600, gt=0, description="seconds until a request gets HTTP 504")
    grace: float = Field(
        30, ge=0, description="seconds after SIGTERM in which what is in work may finish"
    )
    keep_alive: float = Field(
        5, gt=0, description="seconds between comments in a stream that has no words yet"
    )
    max_body: int = Field(1 << 20, ge=1, description="bytes of a request's body")
    max_messages: int = Field(256, ge=1, description="messages of a request")
    max_tools: int = Field(128, ge=1, description="tools of a request")
    max_schema_depth: int = Field(16, ge=1, description="levels of a tool's JSON Schema")
    max_tokens: int = Field(4096, ge=1, description="largest max_tokens a request may ask for")
    max_choices: int = Field(8, ge=1, description="largest n a request may ask for")
    max_threshold: float = Field(
        1.01, ge=0, le=1.01, description="largest threshold a request may ask for; 0: none may"
    )
    max_budget_seconds: float = Field(
        600, gt=0, description="largest time budget a request may ask for"
    )
    overrides: bool = Field(
        True, description="requests may choose a method, by name or in the field quickstudy"
    )
    keys: tuple[KeyConfig, ...] = Field((), description="bearer keys; none: everybody may ask")

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        names, hashes = ([getattr(key, f) for key in self.keys] for f in ("name", "sha256"))
        if len(set(names)) < len(names) or len(set(hashes)) < len(hashes):
            raise ValueError("two keys have the same name or the same sha256; leave one out")
        return self


_MAY_BE_SECRET = ("teacher.api_key_env", "teacher.url", "serve.keys")  # not shown in errors
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # the recipe of arXiv 2510.07841 as far as it is known: nothing is dropped, nothing stops early
    "paper": {
        "awareness": {"estimator": "rss-names", "threshold": 0.95, "reconsider": False},
        "augmentation": {
            "strategy": "question-answer",
            "examples": 1,
            "verify": "form",
            "no_tool": False,
            "informative_loss": 0,
        },
        "learning": {
            "mode": "full",
            "upper_layers": 1.0,
            "rank": 8,
            "alpha": 16,
            "learning_rate": 1e-4,
            "epochs": 5,
            "batch_size": 1,
            "schedule": "cosine",
            "warmup": 0.03,
            "stop_loss": 0,
            "keep_stated": False,
        },
    },
}


class _Preset(PydanticBaseSettingsSource):
    """What the chosen preset sets, below everything that is said out loud."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the source gives all at once

    def __call__(self) -> dict[str, Any]:
        paper = self.current_state.get("method") == "tt-si-paper"
        name = "paper" if paper else self.current_state.get("preset")
        return PRESETS.get(name, {}) if isinstance(name, str) else {}


class _Given(InitSettingsSource):
    """Keyword arguments; of a whole stage only what was set counts as said out loud."""

    def __call__(self) -> dict[str, Any]:
        return {
            key: value.model_dump(exclude_unset=True) if isinstance(value, Stage) else value
            for key, value in super().__call__().items()
        }


def _given(
    settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource
) -> InitSettingsSource:
    assert isinstance(init_settings, InitSettingsSource)
    return _Given(settings_cls, init_settings.init_kwargs)


class Config(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="QUICKSTUDY_",
        env_nested_delimiter="__",
        env_parse_none_str="none",
    )

    method: Literal["base", "tt-si", "tt-d", "tt-icl", "tt-si-paper"] = Field(
        "tt-si",
        description="base: the draft is the answer; tt-si: practises when unsure; tt-d: a teacher"
        " writes the practice; tt-icl: practice is read in the context, nothing is trained;"
        " tt-si-paper: tt-si with preset paper",
    )
    preset: Literal["paper"] | None = Field(
        None, description="paper: the recipe of arXiv 2510.07841; what you set yourself wins"
    )
    repair: bool = Field(
        False,
        description="the verifier's rules applied to every answer: unknown and clearly invented"
        " arguments out, values brought to the schema's types",
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
    teacher: TeacherConfig = TeacherConfig()
    learning: LearningConfig = LearningConfig()
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuses settings of which one takes back what another promises."""
        limit, default = self.decoding.max_calls, DecodingConfig.model_fields["max_calls"].default
        if limit != default and not self.decoding.constrained:
            raise ValueError(
                f"decoding.max_calls = {limit} contradicts decoding.constrained = false: only "
                "constrained decoding counts calls; leave one of them out"
            )
        estimator = self.awareness.estimator
        if self.awareness.score == "votes" and estimator != "rss-samples":
            raise ValueError(
                f"awareness.score = votes contradicts awareness.estimator = {estimator}: only "
                "rss-samples draws answers that can be counted (auto counts them by itself for "
                "plain questions); set one of them otherwise"
            )
        verify, strategy = self.augmentation.verify, self.augmentation.strategy
        if verify == "form" and strategy != "question-answer":
            raise ValueError(
                f"augmentation.verify = form contradicts augmentation.strategy = {strategy}: only "
                "question-answer can do without verified values; set one of them otherwise"
            )
        if self.teacher.url is not None and self.teacher.model is None:
            raise ValueError(
                "teacher.url contradicts teacher.model = none: name the model that is to teach, as"
                " the server knows it"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return _given(settings_cls, init_settings), env_settings, _Preset(settings_cls)

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
        given: dict[str, Any] = {}
        for override in overrides:
            key, separator, text = override.partition("=")
            if not separator:
                raise ConfigError(f"--set takes stage.field=value, got {override!r}")
            _place(given, key.strip(), text.strip())
        given.update({key: value for key, value in settings.items() if value is not None})
        if private := next((key for key in given if key.startswith("_")), None):
            # BaseSettings takes `_env_file` and the like, which are no settings of ours
            raise ConfigError(f"unknown setting {private} (`quickstudy config` lists all)")
        _check_environment()
        try:
            return cls(**_with_file(file)(**given).model_dump())  # a plain, picklable Config
        except ValidationError as error:
            raise ConfigError(_explain(error)) from error
        except SettingsError as error:
            raise ConfigError(f"a QUICKSTUDY_ environment variable: {error}") from error
        except OSError as error:
            raise ConfigError(f"cannot read the settings file {file}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} is no TOML: {error}") from error


def _with_file(file: Path | None) -> type[Config]:
    """`Config` that also reads a TOML file, below the environment."""
    if file is None:
        return Config
    file.open("rb").close()  # the source passes over a missing file in silence

    class FromFile(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            table = TomlConfigSettingsSource(settings_cls, file)
            given = _given(settings_cls, init_settings)
            return given, env_settings, table, _Preset(settings_cls)

    return FromFile


def settings(stage: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yields every setting as (dotted name, default, description)."""
    for name, field in stage.model_fields.items():
        if isinstance(field.default, Stage):
            yield from settings(type(field.default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.default, field.description or ""


def _place(merged: dict[str, Any], key: str, text: str) -> None:
    *tables, last = key.split(".")
    for table in tables:
        merged = merged.setdefault(table, {})
        if not isinstance(merged, dict):
            raise ConfigError(f"{key}: {table} is a setting, not a group of settings")
    merged[last] = None if text.lower() in ("none", "null") else text


def _check_environment() -> None:
    """Refuses unknown variables, which pydantic-settings passes over in silence."""
    prefix = str(Config.model_config["env_prefix"])
    known = [prefix + name.replace(".", "__").upper() for name in _names()]
    for variable in os.environ:
        upper = variable.upper()
        if upper.startswith(prefix) and not any(
            upper == name or upper.startswith(f"{name}__") for name in known
        ):
            raise ConfigError(
                f"unknown environment variable {variable}{_nearest(upper, known)} "
                "(`quickstudy config` lists all settings)"
            )


def _names() -> list[str]:
    """Every setting and every group of settings."""
    groups = [
        name for name, field in Config.model_fields.items() if isinstance(field.default, Stage)
    ]
    return [*groups, *(name for name, _, _ in settings())]


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    # in the wrong group, or in none
    same = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return f"; did you mean {(same or near)[0]}?" if same or near else ""


def _leaves(key: str, value: Any) -> list[str]:
    if not isinstance(value, dict) or not value:
        return [key]
    return [leaf for name, inner in value.items() for leaf in _leaves(f"{key}.{name}", inner)]


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            for leaf in _leaves(key, problem["input"]):
                hint = _nearest(leaf, _names())
                lines.append(f"unknown setting {leaf}{hint} (`quickstudy config` lists all)")
        elif not key:  # settings that contradict each other
            lines.append(problem["msg"].removeprefix("Value error, "))
        elif problem["type"] == "model_type":
            lines.append(f"{key} is a group of settings: set {key}.FIELD (`quickstudy config`)")
        elif key.startswith(_MAY_BE_SECRET):
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{key} = {problem['input']!r}: {message}")
    return "\n".join(lines)
