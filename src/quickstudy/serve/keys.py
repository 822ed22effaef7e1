"""Who asks, and how much they may: bearer keys, requests a minute, practice an hour.

The configuration has only hashes. A key has 256 random bits, so a plain SHA-256 of it tells
nothing; every hash is compared, in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from quickstudy.config import KeyConfig
from quickstudy.serve.faults import ApiError

Clock = Callable[[], float]


class Bucket:
    """Fills by `amount` in `seconds` and holds no more than that; None is never empty."""

    def __init__(self, amount: float | None, seconds: float, clock: Clock) -> None:
        self.amount, self.seconds, self.clock = amount, seconds, clock
        self._level, self._at = amount or 0.0, clock()
        self._lock = threading.Lock()

    def level(self) -> float:
        if self.amount is None:
            return float("inf")
        with self._lock:
            now = self.clock()
            filled = self._level + (now - self._at) * self.amount / self.seconds
            self._level, self._at = min(self.amount, filled), now
            return self._level

    def take(self, amount: float) -> None:
        """May leave less than nothing: what is used up is used up."""
        self.level()
        with self._lock:
            self._level -= amount

    def wait(self, amount: float) -> float:
        """Seconds until there is `amount`."""
        if self.amount is None:
            return 0.0
        return max(0.0, (amount - self.level()) * self.seconds / self.amount)


class Client:
    """A key's owner and what is left to it."""

    def __init__(self, key: KeyConfig, clock: Clock = time.monotonic) -> None:
        self.name = key.name
        per_minute = key.requests_per_minute
        # at less than one a minute the bucket still has to hold a whole request
        amount, seconds = (
            (1.0, 60.0 / per_minute) if per_minute and per_minute < 1 else (per_minute, 60.0)
        )
        self._requests = Bucket(amount, seconds, clock)
        self._practice = Bucket(key.practice_seconds_per_hour, 3600.0, clock)

    def ask(self) -> None:
        """Counts a request. Raises ApiError (429) if it is one too many."""
        wait = self._requests.wait(1.0)
        if wait > 0:
            raise ApiError(
                429,
                f"too many requests of this key; try again in {wait:.0f} s",
                code="rate_limit_exceeded",
                retry_after=wait,
            )
        self._requests.take(1.0)

    def practice_left(self) -> bool:
        return self._practice.level() > 0

    def practised(self, seconds: float) -> None:
        self._practice.take(seconds)


class Keys:
    """All keys of the configuration; without any, everybody is the client `anyone`."""

    def __init__(self, keys: Sequence[KeyConfig], clock: Clock = time.monotonic) -> None:
        self._clients = [(key.sha256, Client(key, clock)) for key in keys]
        self._anyone = Client(KeyConfig(name="anyone", sha256="0" * 64), clock)

    def client(self, authorization: str | None) -> Client:
        """Whose key an Authorization header holds. Raises ApiError (401)."""
        if not self._clients:
            return self._anyone
        scheme, _, key = (authorization or "").partition(" ")
        digest = sha256(key.strip())
        matches = [c for known, c in self._clients if hmac.compare_digest(known, digest)]
        if scheme.lower() != "bearer" or not matches:
            raise ApiError(
                401,
                "this server wants a key that it knows: Authorization: Bearer KEY",
                code="invalid_api_key",
            )
        return matches[0]


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def new_settings(name: str) -> str:
    """A new key and what the settings file has to say of it, as TOML."""
    key = f"qs-{secrets.token_urlsafe(32)}"
    made = KeyConfig(name=name, sha256=sha256(key))
    return (
        f"# {key}\n"
        "# the key itself, shown this once; these lines belong into the settings file:\n"
        f"[[serve.keys]]\nname = {json.dumps(made.name)}\nsha256 = {json.dumps(made.sha256)}"
    )
