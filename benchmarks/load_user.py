"""One locust client of `load.py`: asks, waits for the whole answer, asks again.

Every client goes through the demonstration's requests from another place. Answers are greedy and
at most 48 tokens long. What the requests took is kept here: locust's own statistics round.
"""

from __future__ import annotations

import json
import os
import time
from importlib.resources import files
from typing import Any

import numpy as np
from locust import HttpUser, events, task

TRAFFIC, MODEL = os.environ["LOAD_TRAFFIC"], os.environ["LOAD_MODEL"]
OURS = os.environ["LOAD_SERVER"] == "quickstudy"
ROWS = [
    json.loads(line)
    for line in (files("quickstudy") / "data" / "demo.jsonl").read_text("utf-8").splitlines()
]
TAKEN: list[dict[str, Any]] = []
BEGAN = time.monotonic()


def body(number: int) -> tuple[str, dict[str, Any]]:
    """The kind of the n-th request, and its body."""
    row = ROWS[number % len(ROWS)]
    asked = {"messages": row["messages"], "max_tokens": 48, "temperature": 0, "stream": True}
    asked["stream_options"] = {"include_usage": True}
    if TRAFFIC == "base":
        # no tools: under a grammar, and with a template of its own, the work would differ
        return "base", {**asked, "model": f"{MODEL}:base" if OURS else MODEL}
    kind = TRAFFIC if TRAFFIC != "mixed" else "unsure" if number % 4 == 0 else "sure"
    threshold = 1.01 if kind == "unsure" else 0.0
    return kind, {
        **asked,
        "model": MODEL,
        "tools": row["tools"],
        "quickstudy": {"threshold": threshold},
    }


class Agent(HttpUser):
    """Thinks no time."""

    count = 0

    def on_start(self) -> None:
        self.number = Agent.count * 5
        Agent.count += 1

    @task
    def ask(self) -> None:
        kind, sent = body(self.number)
        self.number += 1
        start, first, tokens, told = time.monotonic(), None, 0, ""
        cycle: dict[str, Any] = {}
        url = "/v1/chat/completions"
        with self.client.post(url, json=sent, stream=True, catch_response=True, name=kind) as got:
            for line in got.iter_lines():
                if not line.startswith(b"data: {"):
                    continue
                told = line.decode()
                chunk = json.loads(told[6:])
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
                cycle = chunk.get("quickstudy") or cycle
                choices = chunk.get("choices") or [{}]
                delta = choices[0].get("delta") or {}
                if delta.get("content") or delta.get("tool_calls"):
                    first = first or time.monotonic()
            end = time.monotonic()
            failed = got.status_code != 200 or first is None or '"error"' in told
            if failed:
                got.failure(told[:200])
            else:
                got.success()
        row = {"kind": kind, "seconds": end - start, "first": (first or end) - start}
        row |= {"queued": cycle.get("queued"), "practised": bool(cycle.get("practised"))}
        TAKEN.append({**row, "tokens": tokens, "failed": failed, "end": end})


@events.quitting.add_listener
def tell(**_: Any) -> None:
    kinds = sorted({row["kind"] for row in TAKEN})
    rows = [summary("all", TAKEN)] + [
        summary(kind, [row for row in TAKEN if row["kind"] == kind])
        for kind in (kinds if len(kinds) > 1 else ())
    ]
    with open(os.environ["LOAD_OUT"], "w", encoding="utf-8") as out:
        json.dump(rows, out)


def summary(kind: str, taken: list[dict[str, Any]]) -> dict[str, Any]:
    """Latencies in seconds; per second of the whole run, the last answers included."""
    good = [row for row in taken if not row["failed"]]
    lasted = max((row["end"] for row in TAKEN), default=BEGAN) - BEGAN or 1.0
    seconds = [row["seconds"] for row in good] or [float("nan")]
    first = [row["first"] for row in good] or [float("nan")]
    queued = [row["queued"] for row in good if row["queued"] is not None]
    told: dict[str, Any] = {
        "kind": kind,
        "requests": len(taken),
        "failures": len(taken) - len(good),
        "per_second": round(len(good) / lasted, 4),
        "tokens_per_second": round(sum(row["tokens"] for row in good) / lasted, 3),
    }
    if queued:
        told["practised"] = sum(row["practised"] for row in good)
    for share in (50, 95, 99):
        told[f"p{share}"] = round(float(np.percentile(seconds, share)), 4)
        told[f"first_p{share}"] = round(float(np.percentile(first, share)), 4)
        if queued:  # until its first computation
            told[f"queued_p{share}"] = round(float(np.percentile(queued, share)), 4)
    return told
