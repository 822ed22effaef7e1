"""Row `memory`: peak memory of a plain answer and of an unsure one, each in a new process.

Each with the model's own weights alone (`-own`), and with the settings' copies for decoding; the
unsure one also with an int8 copy and no other (`-int8`).
Plain inference, which others are compared with, is `plain-own`.

Run as a program it is that process: it loads the model, forgets the peak of loading, answers,
and prints what memory it has taken at most, in bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from quickstudy.config import Config
from quickstudy.errors import QuickstudyError
from quickstudy.improve import Improver
from quickstudy.speed.setting import Setting, forced
from quickstudy.speed.workload import scenarios

REQUESTS = 2  # answered by each process
_STATUS = Path("/proc/self/status")


def memory(setting: Setting) -> None:
    if setting.model.device.type == "cpu" and not _STATUS.exists():
        setting.recorder.say("row memory is left out: this system does not tell peak memory")
        return
    for scenario in setting.lengths:
        setting.recorder.paired(
            "memory",
            {"prefix": scenario.name},
            {
                name: partial(_process, setting, config, scenario.name)
                for name, config in variants(setting.config, setting.model.device).items()
            },
            warm=False,  # a new process has nothing that a round before it could warm
        )


def variants(config: Config, device: torch.device) -> dict[str, Config]:
    """What each process answers with."""

    def decoding(weights: str) -> Config:
        model = config.model.model_copy(update={"decoding_weights": weights})
        return config.model_copy(update={"model": model})

    own, int8 = decoding("own"), decoding("int8")
    made = {
        "plain-own": forced(own, "plain"),
        "unsure-own": forced(own, "unsure"),
        "unsure-int8": forced(int8, "unsure"),
        "plain": forced(config, "plain"),
        "unsure": forced(config, "unsure"),
    }
    if device.type != "cpu":
        del made["unsure-int8"]  # the copy is for a CPU
    return made


def _process(setting: Setting, config: Config, scenario: str, _: int) -> dict[str, Any]:
    told = config.model_dump_json()
    command = [sys.executable, "-m", __name__, setting.spec, scenario, told]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise QuickstudyError(f"measuring memory failed: {done.stderr.strip()[-500:]}")
    peaks: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return peaks


def _main(spec: str, scenario: str, settings: str) -> None:
    config = Config(**json.loads(settings))
    improver = Improver.load(spec, config)
    device = improver.model.device
    loading = peak(device)
    forget(device)
    loaded = peak(device)
    answers = [improver.answer_request(r) for r in scenarios()[scenario].requests[:REQUESTS]]
    told = {
        "peak_loading": loading,
        "loaded": loaded,
        "peak": peak(device),
        "practised": sum(answer.episode.practised for answer in answers),
    }
    print(json.dumps(told))


def peak(device: torch.device) -> int:
    """Bytes taken at most since the process began or since `forget`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    line = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget(device: torch.device) -> None:
    """Starts the peak anew, from what is taken now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # where it is refused, the peak of loading stays in
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    _main(*sys.argv[1:])
