"""A tiny model that calls one tool, rows for it in the benchmarks' form, and its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from conftest import tiny_model

from quickstudy import toolcalls
from quickstudy.model import LanguageModel
from quickstudy.types import Request, ToolCall

LIGHT = {
    "name": "set_light",
    "description": "Sets the light",
    "parameters": {"level": {"type": "int", "required": True, "minimum": 10, "maximum": 99}},
}
# everybody is unsure, and few tokens are trained on and decoded
QUICK = (
    "awareness.threshold=1.01",
    "augmentation.informative_loss=0",
    "augmentation.no_tool=false",
    "learning.epochs=1",
    "learning.stop_loss=0",
    "learning.rank=2",
    "decoding.max_new_tokens=80",
    "model.dtype=float32",
)


def row(query: str, gold: int = 40) -> dict[str, Any]:
    answers = [{"name": "set_light", "arguments": {"level": gold}}]
    return {"query": query, "tools": [LIGHT], "answers": answers}


# the model says 40 whatever it is asked: the first two are right (and one query), one is ungradable
ROWS = (
    row("Light to 40"),
    row("Light to 40"),
    row("Lamp to 40", gold=41),
    row("Beam to 40", gold=52),
    {**row("Glow to 40"), "answers": [{"name": "f", "arguments": {}}]},
)
_TWICE = row("Disco to 93", gold=93)
TRAINING = (
    row("Spot to 71", gold=71),
    row("Sign to 82", gold=82),
    {**_TWICE, "answers": _TWICE["answers"] * 2},
)


def taught(steps: int = 60) -> LanguageModel:
    """The tiny model after some steps on one request: it answers with a call, not with noise."""
    tiny = tiny_model()
    network = tiny.network
    request = Request.parse("Light to 40", [openai_tool(LIGHT)])
    call = ToolCall("set_light", {"level": 40})
    answer = tiny.answer_ids(toolcalls.write([call], "json", request.tools))
    prompt = tiny.render(request.messages, request.tools)
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(steps):
        told, _ = tiny.answer_log_probs(None, [prompt], [answer])
        optimizer.zero_grad(set_to_none=True)
        (-told.mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    network.requires_grad_(False)
    return tiny


def save(model: LanguageModel, folder: Path) -> Path:
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def write_data(folder: Path) -> Path:
    (folder / "train").mkdir(parents=True)
    (folder / "sealtool.json").write_text(json.dumps(ROWS))
    (folder / "train" / "sealtool_train.json").write_text(json.dumps(TRAINING))
    return folder


def openai_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    level = {k: v for k, v in tool["parameters"]["level"].items() if k != "required"}
    return {
        "name": tool["name"],
        "description": tool["description"],
        "parameters": {
            "type": "object",
            "properties": {"level": {**level, "type": "integer"}},
            "required": ["level"],
        },
    }
