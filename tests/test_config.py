"""Settings come from five places, later over earlier; what is unknown or out of range fails."""

from __future__ import annotations

import copy
import json
import os
import pickle
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy import config
from quickstudy.config import Config
from quickstudy.errors import ConfigError, QuickstudyError


@pytest.fixture(autouse=True, scope="module")
def clean_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.upper().startswith("QUICKSTUDY_"):
                patch.delenv(name)
        yield


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "settings.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def get(loaded: Config, key: str) -> Any:
    value: Any = loaded
    for name in key.split("."):
        value = getattr(value, name)
    return value


# a setting of each kind, with values as a file, the environment and --set would spell them
KNOBS: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 2**31),
    "budget_seconds": st.integers(1, 99),
    "method": st.sampled_from(["tt-si", "base", "tt-icl"]),
    "learning.rank": st.integers(1, 64),
    "learning.epochs": st.integers(1, 9),
    "awareness.threshold": st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    "decoding.constrained": st.booleans(),
}
SOME = st.fixed_dictionaries({}, optional=KNOBS)
KEYWORDS = st.fixed_dictionaries({}, optional={k: v for k, v in KNOBS.items() if "." not in k})


def as_toml(values: dict[str, Any]) -> str:
    """Dotted keys are TOML's own spelling of a table's members."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


class TestPrecedence:
    @settings(deadline=None, max_examples=60)
    @given(SOME, SOME, SOME, KEYWORDS)
    def test_defaults_file_environment_set_keyword(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        in_file: dict[str, Any],
        in_environment: dict[str, Any],
        in_set: dict[str, Any],
        as_keyword: dict[str, Any],
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "layers.toml"
        path.write_text(as_toml(in_file))
        with pytest.MonkeyPatch.context() as patch:
            for key, value in in_environment.items():
                patch.setenv(f"QUICKSTUDY_{key.replace('.', '__').upper()}", str(value))
            overrides = [f"{key}={value}" for key, value in in_set.items()]
            loaded = Config.load(path, overrides, **as_keyword)
        default = Config()
        for key in KNOBS:
            value = get(default, key)
            for layer in (in_file, in_environment, in_set, as_keyword):
                value = layer.get(key, value)
            assert get(loaded, key) == value, key

    def test_without_anything_the_defaults_stand(self) -> None:
        assert Config.load() == Config()

    def test_a_file_has_a_table_a_stage(self, toml: Any) -> None:
        path = toml('seed = 3\n[learning]\nrank = 8\n[model]\ncache_dir = "/x"\n')
        loaded = Config.load(path)
        assert (loaded.seed, loaded.learning.rank) == (3, 8)
        assert loaded.model.cache_dir == Path("/x")
        assert loaded.learning.epochs == Config().learning.epochs

    def test_it_does_not_matter_where_a_value_came_from(self, toml: Any) -> None:
        from_file = Config.load(toml("seed = 3\n[learning]\nrank = 2\n"))
        assert from_file == Config.load(None, ["seed=3", "learning.rank=2"])
        assert pickle.loads(pickle.dumps(from_file)) == from_file

    def test_the_last_set_wins(self) -> None:
        assert Config.load(None, ["learning.rank=2", "learning.rank = 4"]).learning.rank == 4

    def test_a_keyword_of_none_is_not_given(self, toml: Any) -> None:
        assert Config.load(toml("seed = 3\n"), method=None, seed=None).seed == 3

    @pytest.mark.parametrize("spelt", ["none", "None", "null"])
    def test_none_takes_a_setting_back(
        self, spelt: str, toml: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = toml("budget_seconds = 9\n[model]\nthreads = 2\n")
        assert Config.load(path).budget_seconds == 9
        assert Config.load(path, [f"budget_seconds={spelt}"]).budget_seconds is None
        monkeypatch.setenv("QUICKSTUDY_MODEL__THREADS", "none")
        loaded = Config.load(path)
        assert loaded.model.threads is None
        assert loaded.budget_seconds == 9

    def test_the_environment_is_read_when_loading(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUICKSTUDY_LEARNING__RANK", "8")
        assert Config.load().learning.rank == 8
        monkeypatch.delenv("QUICKSTUDY_LEARNING__RANK")
        assert Config.load().learning.rank == Config().learning.rank

    def test_loading_leaves_the_defaults_alone(self) -> None:
        before = Config().model_dump()
        Config.load(None, ["learning.rank=3", "awareness.threshold=0"], seed=9)
        assert Config().model_dump() == before
        assert Config.load().model_dump() == before


PAPER = {
    "awareness.estimator": "rss-names",
    "awareness.reconsider": False,
    "awareness.threshold": 0.95,
    "augmentation.strategy": "question-answer",
    "augmentation.examples": 1,
    "augmentation.verify": "form",
    "augmentation.no_tool": False,
    "augmentation.informative_loss": 0,
    "augmentation.memory": None,
    "learning.mode": "full",
    "learning.targets": "all-linear",
    "learning.upper_layers": 1.0,
    "learning.rank": 8,
    "learning.alpha": 16,
    "learning.learning_rate": 1e-4,
    "learning.epochs": 5,
    "learning.batch_size": 1,
    "learning.schedule": "cosine",
    "learning.warmup": 0.03,
    "learning.stop_loss": 0,
    "learning.keep_stated": False,
}
ASKED = ("method", "preset")


class TestPreset:
    """The paper's recipe lies under all that is said out loud, and over the defaults."""

    @pytest.mark.parametrize("asked", [{"preset": "paper"}, {"method": "tt-si-paper"}])
    @pytest.mark.parametrize("by", ["keyword", "constructor", "set", "file", "environment"])
    def test_is_asked_for_in_every_way(
        self, asked: dict[str, str], by: str, toml: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ((key, value),) = asked.items()
        if by == "environment":
            monkeypatch.setenv(f"QUICKSTUDY_{key.upper()}", value)
        path = toml(f'{key} = "{value}"\n')
        loaded = {
            "keyword": lambda: Config.load(**asked),
            "constructor": lambda: Config(**asked),
            "set": lambda: Config.load(None, [f"{key}={value}"]),
            "file": lambda: Config.load(path),
            "environment": Config.load,
        }[by]()
        assert {name: get(loaded, name) for name in PAPER} == PAPER
        assert getattr(loaded, key) == value
        rest = [name for name, _, _ in config.settings() if name not in {*PAPER, *ASKED}]
        assert all(get(loaded, name) == get(Config(), name) for name in [*rest, "learning.targets"])

    @pytest.mark.parametrize("asked", [{"preset": "paper"}, {"method": "tt-si-paper"}])
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("learning.rank", 3),
            ("learning.batch_size", None),
            ("awareness.threshold", 0.8),  # the default, but said out loud
            ("augmentation.informative_loss", 0.5),
            ("seed", 3),
        ],
    )
    def test_what_is_said_out_loud_wins(
        self,
        asked: dict[str, str],
        key: str,
        value: Any,
        toml: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        stage, _, field = key.rpartition(".")
        as_keyword = {stage: {field: value}} if stage else {field: value}
        text = "none" if value is None else str(value)
        loads = [
            lambda: Config(**asked, **as_keyword),
            lambda: Config.load(**asked, **as_keyword),
            lambda: Config.load(None, [f"{key}={text}"], **asked),
        ]
        if value is not None:  # TOML has no word for it
            path = toml(f"{key} = {json.dumps(value)}\n")
            loads.append(lambda: Config.load(path, **asked))
        found = [load() for load in loads]
        monkeypatch.setenv(f"QUICKSTUDY_{key.replace('.', '__').upper()}", text)
        found += [Config(**asked), Config.load(**asked)]
        for loaded in found:
            assert get(loaded, key) == value
            others = {name: wanted for name, wanted in PAPER.items() if name != key}
            assert {name: get(loaded, name) for name in others} == others

    def test_of_a_stage_given_whole_only_what_was_set_is_said(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given_stage = config.LearningConfig(rank=3)
        loaded = Config(method="tt-si-paper", learning=given_stage)
        assert (loaded.learning.rank, loaded.learning.epochs) == (3, 5)
        assert loaded.learning == Config(method="tt-si-paper", learning={"rank": 3}).learning
        assert Config(learning=given_stage).learning == given_stage
        monkeypatch.setenv("QUICKSTUDY_LEARNING__EPOCHS", "9")
        monkeypatch.setenv("QUICKSTUDY_LEARNING__RANK", "9")
        assert Config(learning=given_stage).learning.rank == 3
        assert Config(learning=given_stage).learning.epochs == 9

    def test_the_file_asks_and_the_file_says(self, toml: Any) -> None:
        loaded = Config.load(toml('preset = "paper"\n[learning]\nrank = 3\n'))
        assert (loaded.learning.rank, loaded.learning.alpha) == (3, 16)

    def test_what_is_loaded_stays_what_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loaded = Config.load(None, ["learning.rank=3"], method="tt-si-paper")
        monkeypatch.setenv("QUICKSTUDY_LEARNING__EPOCHS", "9")
        assert Config(**loaded.model_dump()) == loaded
        assert pickle.loads(pickle.dumps(loaded)) == loaded

    @pytest.mark.parametrize("spelt", ["none", "null"])
    def test_is_taken_back(self, spelt: str, toml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        path = toml('preset = "paper"\n')
        assert Config.load(path, [f"preset={spelt}"]).learning == Config().learning
        monkeypatch.setenv("QUICKSTUDY_PRESET", "none")
        assert Config.load(path).learning == Config().learning

    @pytest.mark.parametrize("value", ['"papr"', '["paper"]', "5", "{a = 1}", "true"])
    def test_that_is_none_is_named(self, value: str, toml: Any) -> None:
        with pytest.raises(ConfigError, match="preset"):
            Config.load(toml(f"preset = {value}\n"))

    def test_other_methods_have_none(self) -> None:
        for method in get_args(Config.model_fields["method"].annotation):
            loaded = Config(method=method)
            if method != "tt-si-paper":
                assert loaded.model_dump(exclude={"method"}) == Config().model_dump(
                    exclude={"method"}
                )

    def test_loading_leaves_the_presets_alone(self) -> None:
        before = copy.deepcopy(config.PRESETS)
        Config.load(None, ["learning.rank=3", "learning.mode=full"], method="tt-si-paper")
        assert before == config.PRESETS

    def test_each_can_be_chosen(self) -> None:
        for name in config.PRESETS:
            assert Config(preset=name).preset == name


class TestRefusal:
    """Every refusal is a ConfigError that names the key."""

    @pytest.mark.parametrize(
        ("setting", "told"),
        [
            ("teacher.api_key_env=sk-s3cret", "the name of an environment variable, not the key"),
            ("teacher.url=http://me:s3cret@h/v1", "a user name or a password"),
        ],
    )
    def test_a_secret_in_the_wrong_place_is_not_shown(self, setting: str, told: str) -> None:
        with pytest.raises(ConfigError, match=told) as caught:
            Config.load(None, [setting, "teacher.model=m"])
        assert setting.partition("=")[0] in str(caught.value)
        assert "s3cret" not in str(caught.value)

    def test_a_server_without_a_model_is_not_shown_either(self) -> None:
        with pytest.raises(ConfigError, match=r"contradicts teacher\.model = none") as caught:
            Config.load(None, ["teacher.url=http://s3cret/v1"])
        assert "s3cret" not in str(caught.value)

    @pytest.mark.parametrize("key", ["augmentation.memory", "model.cache_dir", "teacher.model"])
    def test_an_empty_text(self, key: str) -> None:
        """As a folder it would be the one we are in."""
        with pytest.raises(ConfigError, match=f"{key} = '': it is empty; give a value"):
            Config.load(None, [f"{key}="])

    def test_a_value_for_a_group(self) -> None:
        with pytest.raises(ConfigError, match=r"learning is a group of settings: set learning\."):
            Config.load(None, ["learning=5"])

    @pytest.mark.parametrize(
        ("key", "near"),
        [
            ("sed", "seed"),
            ("learning.rnak", "learning.rank"),
            ("learning.lerning_rate", "learning.learning_rate"),
            ("awareness.treshold", "awareness.threshold"),
            ("lerning.rank", "learning."),
            ("rank", "learning.rank"),
        ],
    )
    def test_an_unknown_key_names_the_nearest(self, key: str, near: str, toml: Any) -> None:
        loads = (lambda: Config.load(None, [f"{key}=1"]), lambda: Config.load(toml(f"{key} = 1\n")))
        for load in loads:
            with pytest.raises(ConfigError) as caught:
                load()
            assert key.split(".")[0] in str(caught.value)
            assert near in str(caught.value)

    @pytest.mark.parametrize(
        ("key", "near"),
        [
            ("lerning.rank", "learning.rank"),
            ("lerning.x", "learning"),
            ("model.rank", "learning.rank"),
            ("rank", "learning.rank"),
        ],
    )
    def test_an_unknown_group_names_the_nearest(self, key: str, near: str, toml: Any) -> None:
        path = toml(f"{key} = 1\n")
        for load in (lambda: Config.load(None, [f"{key}=1"]), lambda: Config.load(path)):
            with pytest.raises(ConfigError, match=rf"unknown setting {key}; did you mean {near}"):
                load()

    @pytest.mark.parametrize(
        ("variable", "near"),
        [
            ("QUICKSTUDY_SED", "QUICKSTUDY_SEED"),
            ("quickstudy_sed", "QUICKSTUDY_SEED"),
            ("QUICKSTUDY_LERNING__RANK", "QUICKSTUDY_LEARNING__RANK"),
            ("QUICKSTUDY_LEARNING_RANK", "QUICKSTUDY_LEARNING__RANK"),
        ],
    )
    def test_an_unknown_variable_names_the_nearest(
        self, variable: str, near: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(variable, "8")
        with pytest.raises(ConfigError) as caught:
            Config.load()
        assert f"unknown environment variable {variable}; did you mean {near}?" in str(caught.value)

    def test_a_whole_group_may_stand_in_one_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUICKSTUDY_LEARNING", '{"rank": 8}')
        monkeypatch.setenv("quickstudy_seed", "7")
        assert (Config.load().learning.rank, Config.load().seed) == (8, 7)

    @pytest.mark.parametrize(
        ("overrides", "names"),
        [
            (["teacher.url=http://127.0.0.1:1/v1"], ("teacher.url", "teacher.model")),
            (["augmentation.verify=form"], ("augmentation.verify", "augmentation.strategy")),
            (
                ["decoding.constrained=false", "decoding.max_calls=2"],
                ("decoding.max_calls", "decoding.constrained"),
            ),
            *(
                (
                    [f"awareness.estimator={name}", "awareness.score=votes"],
                    ("awareness.score = votes", f"awareness.estimator = {name}"),
                )
                for name in ("auto", "margin", "reference", "rss-names", "rss-choices", "rss-calls")
            ),
        ],
    )
    def test_a_contradiction_names_both(self, overrides: list[str], names: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            Config.load(None, overrides)
        assert "contradicts" in str(caught.value)
        assert all(name in str(caught.value) for name in names)

    def test_a_home_that_is_not_there(self) -> None:
        with pytest.raises(ConfigError, match=r"model\.cache_dir = '~nouser/x': .*whole path"):
            Config.load(None, ["model.cache_dir=~nouser/x"])

    def test_a_fault_in_a_file_has_its_line(self, toml: Any) -> None:
        with pytest.raises(ConfigError, match=r"is no TOML: .*line 2"):
            Config.load(toml("seed = 1\nmethod = \n"))

    def test_an_unknown_keyword_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError) as caught:
            Config.load(metod="base")
        assert "metod" in str(caught.value)
        assert "method" in str(caught.value)

    def test_an_unknown_member_of_a_group_fails_in_the_environment_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QUICKSTUDY_LEARNING__RNAK", "8")
        with pytest.raises(ConfigError, match=r"learning\.rnak.*learning\.rank"):
            Config.load()

    def test_every_unknown_key_is_named(self) -> None:
        with pytest.raises(ConfigError) as caught:
            Config.load(None, ["sed=1", "learning.rnak=1", "learning.rank=0"])
        assert "sed" in str(caught.value)
        assert "learning.rnak" in str(caught.value)
        assert "learning.rank" in str(caught.value)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("seed", "x"),
            ("seed", "none"),
            ("method", "tt-d2"),
            ("budget_seconds", "0"),
            ("budget_seconds", "nan"),
            ("learning.rank", "0"),
            ("learning.rank", "8.5"),
            ("learning.rank", ""),
            ("learning.learning_rate", "-1"),
            ("learning.learning_rate", "inf"),
            ("learning.learning_rate", "nan"),
            ("learning.mode", "half"),
            ("awareness.threshold", "1.02"),
            ("awareness.threshold", "-0.1"),
            ("awareness.threshold", "nan"),
            ("awareness.estimator", "rss"),
            ("preset", "papr"),
            ("learning.schedule", "linear"),
            ("learning.warmup", "1.1"),
            ("learning.warmup", "-0.1"),
            ("learning.batch_size", "0"),
            ("learning.epochs", "0"),
            ("augmentation.verify", "some"),
            ("augmentation.memory_megabytes", "0"),
            ("repair", "maybe"),
            ("augmentation.temperature", "0"),
            ("augmentation.examples", "0"),
            ("decoding.constrained", "maybe"),
            ("decoding.max_new_tokens", "0"),
            ("model.dtype", "int8"),
        ],
    )
    def test_a_bad_value_names_the_key_wherever_it_stands(
        self, key: str, value: str, toml: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = toml(f"{key} = {json.dumps(value)}\n")
        loads = [lambda: Config.load(None, [f"{key}={value}"]), lambda: Config.load(path)]
        if "." not in key:
            loads.append(lambda: Config.load(**{key: value}))
        for load in loads:
            with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
                load()
        monkeypatch.setenv(f"QUICKSTUDY_{key.replace('.', '__').upper()}", value)
        with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
            Config.load()

    @pytest.mark.parametrize(
        "override",
        [
            *("_env_file=/etc/hostname", "_secrets_dir=/", "_env_prefix=x", "_case_sensitive=1"),
            *("_cli_parse_args=true", "__pydantic_self__=1", "self=1", "model_config=1"),
            "learning.rank",
            "",
            "learning=5",
            "seed.x=1",
            "=5",
            "learning..rank=1",
            "a.b.c=1",
        ],
    )
    def test_an_override_that_is_no_setting(self, override: str) -> None:
        with pytest.raises(ConfigError) as caught:
            Config.load(None, [override])
        assert override.split("=")[0].split(".")[0] in str(caught.value)

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.text("abms.=_ 0", max_size=6)
            | st.sampled_from([*KNOBS, "learning", "model"]).flatmap(
                lambda key: st.text(max_size=5).map(lambda text: f"{key}{text}")
            ),
            max_size=3,
        )
    )
    def test_any_override_is_taken_or_refused(self, overrides: list[str]) -> None:
        with suppress(ConfigError):
            Config.load(None, overrides)

    def test_a_group_is_no_setting_in_a_file_either(self, toml: Any) -> None:
        path = toml("learning = 5\n")
        with pytest.raises(ConfigError, match="learning"):
            Config.load(path)

    @pytest.mark.parametrize("content", ["seed =", "[learning", b'method = "\xff"'])
    def test_a_file_that_is_no_toml_is_named(self, content: str | bytes, toml: Any) -> None:
        path = toml(content)
        with pytest.raises(ConfigError) as caught:
            Config.load(path)
        assert str(path) in str(caught.value)

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        for path in (tmp_path / "missing.toml", tmp_path):
            with pytest.raises(ConfigError) as caught:
                Config.load(path)
            assert str(path) in str(caught.value)

    def test_is_caught_with_all_other_errors(self) -> None:
        assert issubclass(ConfigError, QuickstudyError)


class TestRecord:
    def test_settings_are_frozen(self) -> None:
        loaded = Config.load()
        with pytest.raises(ValueError, match="frozen"):
            loaded.seed = 1  # type: ignore[misc]
        with pytest.raises(ValueError, match="frozen"):
            loaded.learning.rank = 1  # type: ignore[misc]

    def test_every_setting_is_listed_with_its_default_and_described(self) -> None:
        listed = list(config.settings())
        assert len({name for name, _, _ in listed}) == len(listed)
        for name, default, description in listed:
            assert get(Config(), name) == default
            assert description, f"{name} says nothing about itself"
        assert set(KNOBS) <= {name for name, _, _ in listed}

    def test_what_is_recorded_loads_again(self, toml: Any) -> None:
        loaded = Config.load(None, ["learning.rank=3", "model.cache_dir=/x"], method="base")
        recorded = json.loads(loaded.model_dump_json())
        assert recorded["learning"]["rank"] == 3
        lines = [as_toml({k: v for k, v in recorded.items() if not isinstance(v, dict | None)})]
        for stage, values in recorded.items():
            if isinstance(values, dict):
                given_values = {k: v for k, v in values.items() if v is not None}
                lines.append(f"[{stage}]\n{as_toml(given_values)}")
        text = "\n".join(lines)
        tomllib.loads(text)
        assert Config.load(toml(text)) == loaded
