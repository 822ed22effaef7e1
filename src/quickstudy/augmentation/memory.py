"""Practice memory: verified examples kept on disk by content, so that none is written twice.

The key is a digest of all that decides what practice looks like: the model, the request, its
draft and the settings. Off unless `augmentation.memory` names a folder. Values are JSON text
(diskcache would pickle anything else, and nothing here is ever unpickled).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diskcache import Cache

from quickstudy.errors import ConfigError, QuickstudyError
from quickstudy.types import Example, Message, Reply, Request

log = logging.getLogger(__name__)
_FORM = 1  # of what is stored; another number forgets everything


class Memory:
    """A bounded folder of examples; the least recently used go first."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        """Raises ConfigError if the folder cannot be written."""
        try:
            self._cache = Cache(
                str(folder.expanduser()),
                size_limit=megabytes * 1_000_000,
                eviction_policy="least-recently-used",
            )
        except Exception as error:  # sqlite and the operating system each have errors of their own
            raise ConfigError(
                f"augmentation.memory={str(folder)!r} cannot be used: {error}; name another folder"
            ) from error

    def recall(self, key: str) -> list[Example]:
        """The examples kept under a key; none if there are none or they cannot be read."""
        try:
            text = self._cache.get(key)
            return [_parse(raw) for raw in json.loads(text)] if isinstance(text, str) else []
        except (QuickstudyError, ValueError, KeyError, TypeError, AttributeError):
            return []
        except Exception as error:  # a disk that fails costs the memory, not the answer
            log.warning("the practice memory cannot be read: %s", error)
            return []

    def keep(self, key: str, examples: Sequence[Example]) -> None:
        try:
            self._cache.set(key, json.dumps([_dump(example) for example in examples]))
        except Exception as error:
            log.warning("the practice memory cannot be written: %s", error)

    def close(self) -> None:
        self._cache.close()


def key(model: str, request: Request, draft: Reply, settings: dict[str, Any]) -> str:
    """A digest of everything that decides which examples are written.

    Args:
        model: what tells models of one name apart.
        settings: of augmentation and decoding, with method, teacher and seed.
    """
    content = {
        "form": _FORM,
        "model": model,
        "messages": [message.to_openai() for message in request.messages],
        "tools": [tool.to_openai() for tool in request.tools],
        "draft": draft.to_json(),
        "settings": settings,
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _dump(example: Example) -> dict[str, Any]:
    return {
        "messages": [message.to_openai() for message in example.messages],
        "answer": Message("assistant", example.content, example.tool_calls).to_openai(),
        "source": example.source,
    }


def _parse(raw: Any) -> Example:
    answer = Message.parse(raw["answer"])
    messages = tuple(Message.parse(message) for message in raw["messages"])
    return Example(messages, answer.tool_calls, str(raw["source"]), answer.content)
