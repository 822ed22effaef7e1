"""Rows about whole requests: plain, sure, unsure, naive; and many unsure ones together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from quickstudy.learning.practice import Lesson
from quickstudy.model import PrefixCache
from quickstudy.speed.flops import prefill_work
from quickstudy.speed.measure import Work, synchronise
from quickstudy.speed.naive import Naive
from quickstudy.speed.setting import Setting
from quickstudy.speed.workload import different, lessons, sequences
from quickstudy.types import Answer, Request

TOGETHER = (1, 2, 4, 8, 16)


def whole(setting: Setting) -> None:
    """Row `whole`: a request answered plainly, with the gate open, and with practice forced."""
    for scenario in setting.lengths:
        tokens = len(setting.model.prefill(scenario.requests[0]).prefix.ids)
        needs = prefill_work(setting.model.network, tokens)
        cell = {"prefix": scenario.name, "prefix_tokens": tokens, "prefill_flops": needs}
        for request in setting.asked(scenario):
            setting.recorder.paired(
                "whole",
                {**cell, "request": request.id},
                {path: _one(setting, path, request) for path in ("plain", "sure", "unsure")},
            )


def pipeline(setting: Setting) -> None:
    """Row `pipeline`: an unsure request as it is done today, ours, and ours with every step.

    What is done differs: today's way takes every step on examples of a fixed length and samples
    its synthesis; ours stops early and substitutes where it can. `ours-every-step` leaves the
    early stop out.
    """
    naive = Naive(setting.model, setting.config)
    for scenario in setting.lengths:
        context = setting.model.prefill(scenario.requests[0])
        examples = scenario.practice[: setting.config.augmentation.examples]
        told = lessons(setting.model, context, examples)
        whole = sequences(context.prefix, told)
        request = scenario.requests[0]

        def today(
            _: int, request: Request = request, whole: Sequence[Lesson] = whole
        ) -> Mapping[str, Any]:
            return naive.pipeline(request, whole)

        setting.recorder.paired(
            "pipeline",
            {"prefix": scenario.name, "request": request.id},
            {
                "naive": today,
                "ours": _one(setting, "unsure", request),
                "ours-every-step": _one(setting, "every-step", request),
            },
        )


def together(setting: Setting) -> None:
    """Row `together`: unsure requests one after another, and B of them at once.

    Here alone prefixes are kept between requests. Both ways begin each repetition with nothing
    kept, so each reads a tool list once a repetition.
    """
    improver = setting.improver("unsure")

    def nothing_kept() -> None:
        setting.model.prefixes = PrefixCache(setting.config.model.prefix_cache)

    numbers = TOGETHER[:2] if setting.quick else TOGETHER
    others = different()
    same = setting.lengths[0].requests[: numbers[-1]]
    lists = {"same": (same, numbers), "different": (others, (len(others),))}
    for kind, (asked, sizes) in lists.items():

        def alone(_: int, asked: Sequence[Request] = asked) -> Mapping[str, Any]:
            nothing_kept()
            each = []
            for request in asked:
                start = time.perf_counter()
                answer = improver.answer_request(request)
                synchronise(setting.model.device)
                seconds = time.perf_counter() - start
                each.append({"seconds": seconds, **_told(answer)})
            return {"each": each}

        variants: dict[str, Work] = {"alone": alone}
        for size in sizes:

            def at_once(_: int, some: Sequence[Request] = asked[:size]) -> Mapping[str, Any]:
                nothing_kept()
                answers = improver.answer_many(some, at_once=len(some))
                practised = sum(answer.episode.practised for answer in answers)
                return {"B": len(some), "practised": practised, "stages": _stages(answers)}

            variants[f"together-{size}"] = at_once
        setting.recorder.paired("together", {"lists": kind}, variants)
    setting.model.prefixes = PrefixCache(0)


def _one(setting: Setting, path: str, request: Request) -> Work:
    """The same request in every round, so that the rounds tell the noise alone."""
    improver = setting.improver(path)
    return lambda _: _told(improver.answer_request(request))


def _stages(answers: Sequence[Answer]) -> dict[str, float]:
    """Mean seconds of each stage over a batch: what is done together all its answers tell alike."""
    seconds: dict[str, float] = {}
    for answer in answers:
        for stage, spent in answer.episode.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent / len(answers)
    return seconds


def _told(answer: Answer) -> dict[str, Any]:
    episode = answer.episode
    return {
        "practised": episode.practised,
        "fallback": episode.fallback,
        "examples": len(episode.examples),
        "steps": len(episode.losses),
        "losses": list(episode.losses),
        "stages": dict(episode.seconds),
        "answer": [call.to_json() for call in answer.tool_calls],
    }
