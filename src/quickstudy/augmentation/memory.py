"""Practice memory: verified examples kept on disk by content, so that none is written twice.

The key is a digest of all that decides what practice looks like: the model, the request, its
draft, the settings and who writes. Off unless `augmentation.memory` names a folder. Values are
JSON text; whatever else is found in the folder is not read, pickles above all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from diskcache import Cache, Disk
from diskcache.core import DBNAME, MODE_PICKLE

from quickstudy.errors import ConfigError, QuickstudyError
from quickstudy.types import Example, Message, Reply, Request

log = logging.getLogger(__name__)
_FORM = 1  # of what is stored; another number forgets everything
_PATIENCE = 1.0  # seconds to wait for a folder that another process holds


@lru_cache(maxsize=8)
def opened(folder: Path, megabytes: int) -> Memory:
    """The memory of a folder, opened once a process. Raises ConfigError as `Memory` does."""
    return Memory(folder, megabytes)


class Memory:
    """A bounded folder of examples; the least recently used go first.

    A connection lives as long as one reading or writing, so threads and forked processes may
    share a memory, and none is left open.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        """Raises ConfigError if the folder cannot be written."""
        try:
            folder = folder.expanduser()
            folder.mkdir(parents=True, exist_ok=True)
            # diskcache would wait a minute for a lock
            with closing(sqlite3.connect(folder / DBNAME, timeout=_PATIENCE)) as connection:
                connection.execute("BEGIN IMMEDIATE")
            self._cache = Cache(
                str(folder),
                timeout=_PATIENCE,
                disk=_TextDisk,
                size_limit=megabytes * 1_000_000,
                eviction_policy="least-recently-used",
            )
            self._cache.close()
        except Exception as error:  # sqlite and the operating system each have errors of their own
            raise ConfigError(
                f"augmentation.memory={str(folder)!r} cannot be used: {error}; name another folder"
            ) from error

    def recall(self, key: str) -> list[Example]:
        """The examples kept under a key; none if there are none or they cannot be read."""
        try:
            with closing(self._cache) as cache:
                text = cache.get(key)
        except Exception as error:
            _failed("read", error)
            return []
        try:
            return [parse(raw) for raw in json.loads(text)] if isinstance(text, str) else []
        except (QuickstudyError, ValueError, LookupError, TypeError, RecursionError):
            return []

    def keep(self, key: str, examples: Sequence[Example]) -> None:
        try:
            with closing(self._cache) as cache:
                cache.set(key, json.dumps([dump(example) for example in examples]))
        except Exception as error:
            _failed("written", error)


class _TextDisk(Disk):  # type: ignore[misc] # diskcache has no annotations
    """Unpickles nothing: a pickle that somebody put into the folder could run any code."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        return None if mode == MODE_PICKLE else super().fetch(mode, filename, value, read)


def _failed(what: str, error: Exception) -> None:
    """A disk that fails costs the memory, not the answer."""
    log.warning("the practice memory cannot be %s: %s", what, error)
    opened.cache_clear()  # the folder may have been taken away: the next request makes it anew


def key(
    model: str,
    request: Request,
    draft: Reply,
    call_format: str | None,
    settings: Mapping[str, Any],
) -> str:
    """A digest of everything that decides which examples are written.

    The order of names counts as well: models read schemas and calls in order.

    Args:
        model: what tells models of one name apart (`LanguageModel.fingerprint`).
        settings: all that synthesis reads, and the teacher if one writes.
    """
    content = {
        "form": _FORM,
        "model": model,
        "messages": [message.to_openai() for message in request.messages],
        "tools": [tool.to_openai() for tool in request.tools],
        "draft": draft.to_json(),
        "call_format": call_format,
        "settings": settings,
    }
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def dump(example: Example) -> dict[str, Any]:
    return {
        "messages": [message.to_openai() for message in example.messages],
        "answer": Message("assistant", example.content, example.tool_calls).to_openai(),
        "source": example.source,
    }


def parse(raw: Any) -> Example:
    answer = Message.parse(raw["answer"])
    if not answer.content and not answer.tool_calls:
        raise ValueError("an example without an answer")
    messages = Request.parse(raw["messages"]).messages
    return Example(messages, answer.tool_calls, str(raw["source"]), answer.content)
