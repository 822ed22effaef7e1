"""Keys are known by their hash; what they may do fills up with time."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from quickstudy.config import Config, KeyConfig
from quickstudy.errors import ConfigError
from quickstudy.serve.faults import ApiError
from quickstudy.serve.keys import Client, Keys, new_settings, sha256


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def key(**fields: float) -> KeyConfig:
    return KeyConfig.model_validate({"name": "ann", "sha256": sha256("secret"), **fields})


def test_without_keys_everybody_may_ask() -> None:
    client = Keys([]).client(None)
    assert client.name == "anyone"
    for _ in range(1000):
        client.ask()
    client.practised(1e9)
    assert client.practice_left()


class TestKeys:
    @pytest.mark.parametrize("header", ["Bearer secret", "bearer secret", "Bearer  secret "])
    def test_a_known_one(self, header: str) -> None:
        other = KeyConfig(name="bob", sha256=sha256("other"))
        assert Keys([other, key()]).client(header).name == "ann"

    @pytest.mark.parametrize(
        "header", [None, "", "secret", "Basic secret", "Bearer", "Bearer x", "Bearer sécret"]
    )
    def test_an_unknown_one(self, header: str | None) -> None:
        with pytest.raises(ApiError) as error:
            Keys([key()]).client(header)
        assert (error.value.status, error.value.code) == (401, "invalid_api_key")
        assert "secret" not in str(error.value)

    def test_the_hash_itself_is_no_key(self) -> None:
        with pytest.raises(ApiError):
            Keys([key()]).client(f"Bearer {sha256('secret')}")

    def test_a_new_one_is_known_by_what_is_printed(self, tmp_path: Path) -> None:
        told = new_settings('a "b"')
        secret = told.split()[1]
        (tmp_path / "s.toml").write_text(told)
        assert tomllib.loads(told)["serve"]["keys"][0]["name"] == 'a "b"'
        keys = Config.load(tmp_path / "s.toml").serve.keys
        assert Keys(keys).client(f"Bearer {secret}").name == 'a "b"'
        assert secret not in told.partition("[[")[2]

    def test_a_key_in_place_of_its_hash_is_not_shown(self, tmp_path: Path) -> None:
        (tmp_path / "s.toml").write_text('[[serve.keys]]\nname = "a"\nsha256 = "qs-secret"')
        with pytest.raises(ConfigError) as error:
            Config.load(tmp_path / "s.toml")
        assert "serve.keys.0.sha256" in str(error.value)
        assert "qs-secret" not in str(error.value)

    def test_two_of_one_name_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "s.toml").write_text(new_settings("a") + "\n" + new_settings("a"))
        with pytest.raises(ConfigError, match="same name"):
            Config.load(tmp_path / "s.toml")


class TestRates:
    def test_requests_a_minute(self) -> None:
        clock = Clock()
        client = Client(key(requests_per_minute=3), clock)
        for _ in range(3):
            client.ask()
        with pytest.raises(ApiError) as error:
            client.ask()
        assert error.value.status == 429
        assert error.value.response().headers["retry-after"] in ("20", "21")
        clock.now = 19.9
        with pytest.raises(ApiError):
            client.ask()
        clock.now = 20.1
        client.ask()
        clock.now = 1e6  # no more than a minute's worth is kept
        for _ in range(3):
            client.ask()
        with pytest.raises(ApiError):
            client.ask()

    def test_less_than_one_a_minute(self) -> None:
        clock = Clock()
        client = Client(key(requests_per_minute=0.5), clock)
        client.ask()
        with pytest.raises(ApiError):
            client.ask()
        clock.now = 121
        client.ask()

    def test_practice_an_hour(self) -> None:
        clock = Clock()
        client = Client(key(practice_seconds_per_hour=36), clock)
        client.practised(30)
        assert client.practice_left()
        client.practised(16)
        assert not client.practice_left()
        clock.now = 900  # nine seconds' worth
        assert not client.practice_left()
        clock.now = 1100
        assert client.practice_left()

    def test_none_at_all(self) -> None:
        assert not Client(key(practice_seconds_per_hour=0)).practice_left()
