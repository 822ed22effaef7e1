"""quickstudy: a small language model that practises on the spot. Start at `improve.py`."""

from typing import TYPE_CHECKING, Any

from quickstudy.config import Config
from quickstudy.errors import (
    ConfigError,
    ModelError,
    PracticeFailed,
    QuickstudyError,
    RequestError,
)
from quickstudy.types import Answer, Episode, Example, Message, Reply, Request, Tool, ToolCall

__all__ = [
    "Answer",
    "Config",
    "ConfigError",
    "Episode",
    "Example",
    "Improver",
    "Message",
    "ModelError",
    "PracticeFailed",
    "QuickstudyError",
    "Reply",
    "Request",
    "RequestError",
    "Tool",
    "ToolCall",
]

if TYPE_CHECKING:
    from quickstudy.improve import Improver


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import, so they wait for the first use
    if name == "Improver":
        from quickstudy.improve import Improver

        return Improver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
