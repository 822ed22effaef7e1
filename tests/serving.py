"""A real server on a free port of this machine, and a tiny model that was taught to call."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import torch
from torch import Tensor

from quickstudy import toolcalls
from quickstudy.config import Config
from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.serve.server import Server
from quickstudy.teaching.teacher import Teacher
from quickstudy.types import Request, ToolCall

ASK = "Light to 40"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "set_light",
            "description": "",
            "parameters": {
                "type": "object",
                "properties": {"level": {"type": "integer", "minimum": 10, "maximum": 99}},
                "required": ["level"],
            },
        },
    }
]
SAID = ToolCall("set_light", {"level": 40})
GREETING, GREETED = "Hi", "Hello. How are you? Söfort ✓"

_taught: dict[str, Tensor] = {}


def teach(tiny: LanguageModel) -> LanguageModel:
    """Sixty steps, once a run: it answers ASK with a call and GREETING with words."""
    if not _taught:
        network = tiny.network
        call = toolcalls.write([SAID], "json", Request.parse(ASK, TOOLS).tools)
        lessons = [(Request.parse(ASK, TOOLS), call), (Request.parse(GREETING), GREETED)]
        prompts = [tiny.render(request.messages, request.tools) for request, _ in lessons]
        answers = [tiny.answer_ids(answer) for _, answer in lessons]
        network.requires_grad_(True)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for _ in range(80):
            told, mask = tiny.answer_log_probs(None, prompts, answers)
            optimizer.zero_grad(set_to_none=True)
            (-(told * mask).sum() / mask.sum()).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        network.requires_grad_(False)
        _taught.update({name: value.clone() for name, value in network.state_dict().items()})
    tiny.network.load_state_dict(_taught)
    return tiny


def config(**stages: Any) -> Config:
    """Always unsure, every example trained on; what is given goes on top."""
    settings: dict[str, Any] = {
        "awareness": {"threshold": 1.01},
        "augmentation": {"informative_loss": 0, "no_tool": False},
        "learning": {"stop_loss": 0, "epochs": 2, "learning_rate": 1e-3},
        "decoding": {"max_new_tokens": 100},
        "serve": {"port": 0, "keep_alive": 0.05, "grace": 10},
    }
    for stage, values in stages.items():
        known = settings.get(stage)
        settings[stage] = {**known, **values} if isinstance(known, dict) else values
    return Config(**settings)


class Running:
    """A server in a thread of this process."""

    def __init__(self, improver: Improver, teacher: Teacher | None = None) -> None:
        self.server = Server(improver, teacher)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until = time.monotonic() + 10
        while not self.server.started and self.thread.is_alive() and time.monotonic() < until:
            time.sleep(0.005)
        assert self.server.started
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.host = f"http://127.0.0.1:{port}"
        self.url = f"{self.host}/v1"
        self.name = self.server.name

    def terminate(self) -> None:
        """What SIGTERM does."""
        self.server.handle_exit(signal.SIGTERM, None)

    def close(self) -> None:
        self.terminate()
        self.terminate()  # no grace
        self.thread.join(10)
        assert not self.thread.is_alive()
