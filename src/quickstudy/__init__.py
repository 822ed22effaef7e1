"""quickstudy: a small language model that practises on the spot. Start at `improve.py`."""

from quickstudy.config import Config
from quickstudy.errors import (
    ConfigError,
    ModelError,
    PracticeFailed,
    QuickstudyError,
    RequestError,
)
from quickstudy.improve import Improver
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
