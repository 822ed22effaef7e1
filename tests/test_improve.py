"""The whole cycle on a tiny model that was taught, in a second, to make calls.

Its output is its own: nothing here stands in for a stage but to make it fail.
"""

from __future__ import annotations

import _thread
import gc
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
import torch
from naughty import NaughtyServer
from torch import Tensor

from quickstudy import decoding, improve, toolcalls
from quickstudy.augmentation import synthesis as synthesis_module
from quickstudy.awareness import estimators
from quickstudy.config import Config
from quickstudy.decoding import Ask, Decoder, Draft, Generation
from quickstudy.errors import ConfigError, NoExamples, RequestError
from quickstudy.improve import Improver
from quickstudy.learning import practice
from quickstudy.model import Context, LanguageModel
from quickstudy.teaching.teacher import LocalTeacher, load_teacher
from quickstudy.types import STAGES, Answer, Example, Message, Reply, Request, ToolCall

ASK = "Light to 40"
TOOLS = [
    {
        "name": "set_light",
        "parameters": {
            "type": "object",
            "properties": {"level": {"type": "integer", "minimum": 10, "maximum": 99}},
            "required": ["level"],
        },
    }
]
SAID = ToolCall("set_light", {"level": 40})
UNSURE_PATH = ("synthesis", "practice", "answer", "reset")

_taught: dict[str, Tensor] = {}


@pytest.fixture
def model(tiny: LanguageModel) -> LanguageModel:
    """The tiny model after 60 steps on one request: it answers with a call, not with noise."""
    if not _taught:
        network = tiny.network
        request = Request.parse(ASK, TOOLS)
        prompt = tiny.render(request.messages, request.tools)
        answer = tiny.answer_ids(toolcalls.write([SAID], "json", request.tools))
        network.requires_grad_(True)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
        for _ in range(60):
            told, _ = tiny.answer_log_probs(None, [prompt], [answer])
            optimizer.zero_grad(set_to_none=True)
            (-told.mean()).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        network.requires_grad_(False)
        _taught.update({name: value.clone() for name, value in network.state_dict().items()})
    tiny.network.load_state_dict(_taught)
    return tiny


def config(**stages: Any) -> Config:
    """Always unsure, every example trained on; `learning={"epochs": 1}` and the like go on top."""
    settings: dict[str, Any] = {
        "awareness": {"threshold": 1.01},
        "augmentation": {"informative_loss": 0, "no_tool": False},
        "learning": {"stop_loss": 0, "epochs": 2, "learning_rate": 1e-3},
        "decoding": {"max_new_tokens": 100},
    }
    for stage, values in stages.items():
        known = settings.get(stage)
        settings[stage] = {**known, **values} if isinstance(known, Mapping) else values
    return Config(**settings)


def cycle(model: LanguageModel, **stages: Any) -> Answer:
    return Improver(model, config(**stages)).answer(ASK, TOOLS)


@dataclass
class State:
    """All of a model that a cycle might change, and the global random states."""

    logits: Tensor
    weights: list[Tensor]
    flags: list[bool]
    gradients: list[Tensor | None]
    modes: list[bool]
    hooks: list[list[int]]
    randomness: list[Any]

    @classmethod
    def of(cls, model: LanguageModel) -> State:
        network, numpy = model.network, np.random.get_state()
        request = Request.parse(ASK, TOOLS)
        ids = model.render(request.messages, request.tools)
        with torch.no_grad():
            logits = network(torch.tensor([ids]), use_cache=False).logits
        assert isinstance(numpy, tuple)
        return cls(
            logits,
            [tensor.clone() for tensor in network.state_dict().values()],
            [parameter.requires_grad for parameter in network.parameters()],
            [parameter.grad for parameter in network.parameters()],
            [module.training for module in network.modules()],
            [
                [*m._forward_hooks, *m._forward_pre_hooks, *m._backward_hooks]
                for m in network.modules()
            ],
            [torch.random.get_rng_state(), random.getstate(), numpy[1].tobytes(), numpy[2:]],
        )

    def assert_still(self, model: LanguageModel) -> None:
        now = State.of(model)
        assert torch.equal(now.logits, self.logits)
        assert all(map(torch.equal, now.weights, self.weights))
        assert now.flags == self.flags
        assert now.gradients == self.gradients
        assert now.modes == self.modes
        assert now.hooks == self.hooks
        assert torch.equal(now.randomness[0], self.randomness[0])
        assert now.randomness[1:] == self.randomness[1:]


def mix_up(model: LanguageModel) -> State:
    """Flags and modes set every other way, so that restoring them to one value shows."""
    for number, parameter in enumerate(model.network.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    for number, module in enumerate(model.network.modules()):
        module.training = number % 3 == 0
    return State.of(model)


class Fault(Exception):
    pass


@contextmanager
def ctrl_c_after(seconds: float) -> Iterator[None]:
    # a process started in the background ignores SIGINT, and the interrupt would never come
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(seconds, _thread.interrupt_main)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)


Break = Callable[[pytest.MonkeyPatch, type[BaseException]], None]


def _failing(real: Callable[..., Any], call: int, error: type[BaseException]) -> Callable[..., Any]:
    """`real`, but its n-th call does its work and then fails."""
    calls = []

    def run(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        result = real(*args, **kwargs)
        if len(calls) == call:
            raise error("broken")
        return result

    return run


def awareness(patches: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    patches.setattr(estimators, "token_margin", _failing(estimators.token_margin, 1, error))


def synthesis(patches: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    patches.setattr(improve, "synthesise", _failing(improve.synthesise, 1, error))


def practice_loss(patches: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    patches.setattr(practice.Losses, "of", _failing(practice.Losses.of, 2, error))


def practice_step(patches: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    patches.setattr(torch.optim.AdamW, "step", _failing(torch.optim.AdamW.step, 1, error))


def answer_decoding(patches: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    patches.setattr(Decoder, "decode", _failing(Decoder.decode, 2, error))


def answer_reading(patches: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    patches.setattr(toolcalls, "read", _failing(toolcalls.read, 2, error))


STAGE_FAULTS: dict[Break, str] = {
    awareness: "awareness",
    synthesis: "synthesis",
    practice_loss: "practice",
    practice_step: "practice",
    answer_decoding: "answer",
    answer_reading: "answer",
}
MODES = ("activated", "full")


@pytest.mark.parametrize("mode", MODES)
class TestReset:
    """After any outcome the base model, and the world, is bit for bit what it was."""

    def test_after_success(
        self, model: LanguageModel, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside = []
        real = Improver._answer

        def watch(self: Improver, *args: Any) -> Any:
            inside.append(State.of(self.model))
            return real(self, *args)

        monkeypatch.setattr(Improver, "_answer", watch)
        before = mix_up(model)
        answer = cycle(model, learning={"mode": mode})
        assert answer.episode.practised
        assert answer.episode.fallback is None
        assert len(answer.episode.losses) == 2
        before.assert_still(model)
        # inside, all of it was otherwise: there was something to reset
        assert not torch.equal(inside[0].logits, before.logits)
        assert inside[0].hooks != before.hooks
        assert not any(inside[0].flags)

    @pytest.mark.parametrize("broken", STAGE_FAULTS)
    def test_after_an_error_in_a_stage(
        self, model: LanguageModel, mode: str, broken: Break
    ) -> None:
        before = mix_up(model)
        with pytest.MonkeyPatch.context() as patches:
            broken(patches, Fault)
            answer = cycle(model, learning={"mode": mode})
        before.assert_still(model)
        assert answer.episode.fallback == f"{STAGE_FAULTS[broken]} failed: Fault: broken"
        assert not answer.episode.practised
        assert answer.tool_calls == answer.episode.draft.tool_calls == (SAID,)
        assert_documented(answer)

    @pytest.mark.parametrize("broken", STAGE_FAULTS)
    def test_after_ctrl_c_in_a_stage(self, model: LanguageModel, mode: str, broken: Break) -> None:
        before = mix_up(model)
        with pytest.MonkeyPatch.context() as patches:
            broken(patches, KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                cycle(model, learning={"mode": mode})
        before.assert_still(model)

    def test_after_a_real_ctrl_c(self, model: LanguageModel, mode: str) -> None:
        before = mix_up(model)
        with ctrl_c_after(0.4), pytest.raises(KeyboardInterrupt):
            cycle(model, learning={"mode": mode, "epochs": 5_000})
        before.assert_still(model)

    def test_after_practice_that_breaks_the_model(self, model: LanguageModel, mode: str) -> None:
        """Found out by the loss of the second step, or by the answer after a single one."""
        for steps in (2, 1):
            before = mix_up(model)
            answer = cycle(model, learning={"mode": mode, "epochs": steps, "learning_rate": 1e30})
            before.assert_still(model)
            assert answer.episode.fallback
            assert answer.tool_calls == (SAID,)
            assert_documented(answer)

    def test_the_next_request_is_answered_as_if_it_were_the_first(
        self, model: LanguageModel, mode: str
    ) -> None:
        improver = Improver(model, config(learning={"mode": mode}))
        first = improver.answer(ASK, TOOLS)
        improver.answer("Lamp to 75 please", TOOLS)
        assert without_seconds(improver.answer(ASK, TOOLS)) == without_seconds(first)


def without_seconds(answer: Answer) -> dict[str, Any]:
    told = answer.to_json()
    del told["episode"]["seconds"]
    return told


def assert_documented(answer: Answer) -> None:
    told = json.loads(json.dumps(answer.to_json(), allow_nan=False))
    assert list(told) == ["id", "content", "tool_calls", "episode"]
    episode = told["episode"]
    assert list(episode) == [
        *("method", "certainty", "threshold", "practised", "fallback", "draft", "candidates"),
        *("examples", "rejected", "losses", "repaired", "notes", "seconds"),
    ]
    assert list(episode["draft"]) == ["content", "tool_calls"]
    for call in [*told["tool_calls"], *episode["draft"]["tool_calls"]]:
        assert list(call) == ["name", "arguments"]
    for candidate in episode["candidates"]:
        assert list(candidate) == ["text", "log_prob"]
    for example in episode["examples"]:
        assert list(example) == ["request", "content", "tool_calls", "source"]
    for rejected in episode["rejected"]:
        assert list(rejected) == ["request", "content", "tool_calls", "source", "reason"]
    assert tuple(episode["seconds"]) == STAGES
    assert STAGES == ("prefill", "draft", "awareness", "synthesis", "practice", "answer", "reset")
    assert all(value >= 0 for value in episode["seconds"].values())
    assert all(isinstance(loss, float) for loss in episode["losses"])


class TestRecord:
    def test_a_practised_answer(self, model: LanguageModel) -> None:
        answer = Improver(model, config()).answer(ASK, TOOLS, id="r1")
        assert_documented(answer)
        told = answer.to_json()
        assert told["id"] == "r1"
        assert told["tool_calls"] == [SAID.to_json()]
        episode = told["episode"]
        assert (episode["method"], episode["threshold"]) == ("tt-si", 1.01)
        assert (episode["practised"], episode["fallback"]) == (True, None)
        assert 0 <= episode["certainty"] < 1
        assert len(episode["candidates"]) == 2
        assert len(episode["examples"]) == 2
        for example in episode["examples"]:
            (level,) = (call["arguments"]["level"] for call in example["tool_calls"])
            assert example["request"] == f"Light to {level}"
            assert level != 40
        assert len(episode["losses"]) == 2
        assert episode["losses"][1] < episode["losses"][0]
        assert all(episode["seconds"][stage] > 0 for stage in ("prefill", "draft", "practice"))

    def test_a_plain_answer(self, model: LanguageModel) -> None:
        settings = config(decoding={"max_new_tokens": 8})
        answer = Improver(model, settings).answer("Hello there")
        assert_documented(answer)
        assert answer.content == answer.episode.draft.content
        assert answer.tool_calls == ()
        assert answer.episode.fallback in (  # what a random model samples decides
            "no practice example survived verification",
            "the practised answer was cut off",
        )

    @pytest.mark.parametrize("estimator", ["margin", "rss-calls", "rss-names"])
    def test_of_every_estimator(self, model: LanguageModel, estimator: str) -> None:
        tools = [*TOOLS, {"name": "go", "parameters": {"type": "object", "properties": {}}}]
        improver = Improver(model, config(awareness={"estimator": estimator}))
        answer = improver.answer(ASK, tools)
        assert_documented(answer)
        assert answer.episode.certainty is not None
        assert 0 <= answer.episode.certainty <= 1

    def test_known_lessons_are_told_as_rejected(self, model: LanguageModel) -> None:
        answer = cycle(model, augmentation={"informative_loss": 50})
        assert answer.episode.fallback == "the model already answers every practice example"
        assert not answer.episode.practised
        assert answer.episode.losses == ()
        assert answer.tool_calls == (SAID,)

    def test_one_known_lesson(self, model: LanguageModel) -> None:
        both = cycle(model, learning={"epochs": 1})
        first, second = (
            cycle_losses(model, example) for example in both.to_json()["episode"]["examples"]
        )
        assert first != second
        answer = cycle(model, augmentation={"informative_loss": (first + second) / 2})
        (rejected,) = answer.episode.rejected
        assert rejected.reason == "the model already answers it"
        assert len(answer.episode.examples) == 1
        assert answer.episode.practised
        assert answer.episode.losses[0] == pytest.approx(max(first, second), abs=1e-4)
        assert_documented(answer)

    def test_a_small_loss_is_one_step_of_practice(self, model: LanguageModel) -> None:
        answer = cycle(model, learning={"stop_loss": 50})
        assert answer.episode.practised
        assert len(answer.episode.losses) == 1
        assert_documented(answer)


def cycle_losses(model: LanguageModel, example: Mapping[str, Any]) -> float:
    request = Request.parse(example["request"], TOOLS)
    calls = [ToolCall(call["name"], call["arguments"]) for call in example["tool_calls"]]
    context = model.prefill(request)
    answer = model.answer_ids(toolcalls.write(calls, "json", request.tools))
    lesson = practice.Lesson(context.turn, answer)
    with torch.no_grad():
        return float(practice.lesson_losses(model, [context.prefix], [lesson], "activated"))


@pytest.fixture
def passes(model: LanguageModel) -> Iterator[list[int]]:
    """The widths of all forward passes that the network makes."""
    widths: list[int] = []
    hook = model.network.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    yield widths
    hook.remove()


class TestSure:
    @pytest.mark.parametrize("estimator", ["margin", "rss-names"])
    def test_pays_nothing_but_the_draft(
        self, model: LanguageModel, passes: list[int], estimator: str
    ) -> None:
        base = cycle(model, method="base")
        paid_for_base = list(passes)
        passes.clear()
        sure = cycle(model, awareness={"threshold": 0, "estimator": estimator})
        assert passes == paid_for_base
        assert sure.tool_calls == base.tool_calls == (SAID,)
        assert not sure.episode.practised
        assert sure.episode.fallback is None
        assert sure.episode.certainty is not None
        seconds = sure.to_json()["episode"]["seconds"]
        assert [seconds[stage] for stage in UNSURE_PATH] == [0, 0, 0, 0]
        assert_documented(sure)

    def test_an_unsure_one_pays_more(self, model: LanguageModel, passes: list[int]) -> None:
        cycle(model, method="base")
        paid_for_base = len(passes)
        passes.clear()
        cycle(model)
        assert len(passes) > paid_for_base

    def test_the_threshold_decides(self, model: LanguageModel) -> None:
        u = cycle(model, awareness={"threshold": 0}).episode.certainty
        assert u is not None
        assert 0 < u < 1
        assert not cycle(model, awareness={"threshold": u}).episode.practised
        assert cycle(model, awareness={"threshold": u + 1e-6}).episode.practised


class TestBase:
    @pytest.mark.parametrize("ask", [ASK, "Lamp to 75 please", "Hello"])
    def test_is_the_draft_of_practice(self, model: LanguageModel, ask: str) -> None:
        base = Improver(model, config(method="base")).answer(ask, TOOLS)
        practised = Improver(model, config()).answer(ask, TOOLS)
        assert (base.content, base.tool_calls) == (
            practised.episode.draft.content,
            practised.episode.draft.tool_calls,
        )
        assert base.episode.draft == practised.episode.draft
        assert base.episode.certainty is None
        seconds = base.to_json()["episode"]["seconds"]
        assert [seconds[stage] for stage in ("awareness", *UNSURE_PATH)] == [0, 0, 0, 0, 0]
        assert_documented(base)


class TestSeed:
    def test_one_seed_one_answer(self, model: LanguageModel) -> None:
        assert without_seconds(cycle(model)) == without_seconds(cycle(model))

    def test_another_seed_practises_otherwise(self, model: LanguageModel) -> None:
        assert cycle(model, seed=1).episode.losses != cycle(model, seed=2).episode.losses

    @pytest.mark.parametrize("strategy", ["substitution", "call-first"])
    def test_the_global_random_state_does_not_matter(
        self, model: LanguageModel, strategy: str
    ) -> None:
        told = []
        for seed in (1, 2):
            random.seed(seed)
            torch.manual_seed(seed)
            told.append(without_seconds(cycle(model, augmentation={"strategy": strategy})))
        assert told[0] == told[1]


class TestFinalAnswer:
    """What the practised model says is taken only if it can be used."""

    def say(
        self,
        model: LanguageModel,
        patches: pytest.MonkeyPatch,
        text: str,
        finished: bool = True,
        **stages: Any,
    ) -> Answer:
        """A whole cycle whose second decoding, the final answer, comes out as `text`."""
        real, calls = Improver._decode, []

        def decode(self: Improver, *args: Any) -> list[Generation]:
            calls.append(None)
            (generation,) = real(self, *args)
            if len(calls) == 2:
                generation = replace(generation, text=text, finished=finished)
            return [generation]

        patches.setattr(Improver, "_decode", decode)
        answer = cycle(model, **stages)
        assert len(calls) == 2
        assert_documented(answer)
        return answer

    def test_a_good_one_is_the_answer(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = '[{"name": "set_light", "arguments": {"level": 41}}]'
        answer = self.say(model, monkeypatch, text, learning={"keep_stated": False})
        assert answer.tool_calls == (ToolCall("set_light", {"level": 41}),)
        assert answer.episode.draft.tool_calls == (SAID,)
        assert answer.episode.practised

    def test_what_it_has_lost_of_the_request_comes_back(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = '[{"name": "set_light", "arguments": {"level": 41}}]'
        answer = self.say(model, monkeypatch, text)
        assert answer.tool_calls == (SAID,)
        assert answer.episode.practised
        told = "set_light: level = 40 of the draft kept, practice had made 41 of it"
        assert answer.episode.notes == (told,)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('[{"name": "set_light", "argum', "calls nothing"),
            ("Sorry, I can't.", "calls nothing"),
            ("", "calls nothing"),
            ('[{"name": "set_lamp", "arguments": {"level": 41}}]', "no tool is called 'set_lamp'"),
            ('[{"name": "set_light", "arguments": {"level": 400}}]', "400"),
            ('[{"name": "set_light", "arguments": {}}]', "level"),
            ('[{"name": "set_light", "arguments": {"level": NaN}}]', ""),
            ('[{"name": "set_light", "arguments": {"level": 1e999}}]', ""),
        ],
    )
    def test_an_unusable_one_falls_back_to_the_draft(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
    ) -> None:
        answer = self.say(model, monkeypatch, text)
        assert answer.tool_calls == (SAID,)
        assert answer.episode.fallback is not None
        assert answer.episode.fallback.startswith("the practised answer is not valid: ")
        assert reason in answer.episode.fallback
        assert not answer.episode.practised

    def test_a_cut_off_one_falls_back_to_the_draft(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = '[{"name": "set_light", "arguments": {"level": 41}}]'
        answer = self.say(model, monkeypatch, text, finished=False)
        assert answer.tool_calls == (SAID,)
        assert answer.episode.fallback == "the practised answer was cut off"


class TestAvailability:
    def test_no_time_for_practice(self, model: LanguageModel) -> None:
        before = mix_up(model)
        answer = cycle(model, budget_seconds=1e-6)
        before.assert_still(model)
        assert answer.tool_calls == (SAID,)
        assert answer.episode.fallback == "the time budget is spent"
        assert_documented(answer)

    def test_time_runs_out_in_practice(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The clock jumps past the budget while the second step's loss is computed."""
        real, losses = practice.Losses.of, []

        def slow(*args: Any) -> Tensor:
            losses.append(None)
            if len(losses) == 2:
                late = time.monotonic() + 1e6
                monkeypatch.setattr(decoding, "time", SimpleNamespace(monotonic=lambda: late))
            return real(*args)

        monkeypatch.setattr(practice.Losses, "of", slow)
        before = mix_up(model)
        answer = cycle(model, budget_seconds=1e5, learning={"epochs": 50})
        before.assert_still(model)
        assert len(losses) == 2
        assert answer.tool_calls == (SAID,)
        assert answer.episode.fallback == "the time budget is spent"
        assert "practice" in answer.episode.seconds
        assert "answer" not in answer.episode.seconds

    def test_no_practice_survives(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nothing(*_: object) -> None:
            raise NoExamples("none today")

        monkeypatch.setattr(improve, "synthesise", nothing)
        answer = cycle(model)
        assert answer.episode.fallback == "none today"
        assert answer.tool_calls == (SAID,)
        assert "practice" not in answer.episode.seconds

    def test_unreadable_requests_raise(self, model: LanguageModel) -> None:
        with pytest.raises(RequestError):
            Improver(model).answer([{"role": "nobody", "content": "x"}])
        with pytest.raises(RequestError, match="reads 4096"):
            Improver(model).answer("x" * 5000)

    @pytest.mark.parametrize(
        "schema",
        [
            {"properties": {"x": {"type": "string", "pattern": "(?=a)b"}}},  # look-ahead
            {"properties": {"x": {"enum": []}}, "required": ["x"]},  # nothing satisfies it
            {"properties": {"x": {"type": "integer", "minimum": 5, "maximum": 1}}},
            {"properties": {"x": {"$ref": "#/$defs/none"}}},
            {"properties": {"x": {"$ref": "https://example.org/x.json"}}},
            {"properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}},
        ],
    )
    def test_a_schema_that_makes_no_grammar_is_no_reason_to_fail(
        self, model: LanguageModel, schema: dict[str, Any]
    ) -> None:
        """Nothing but an unreadable request raises (`Improver.answer`)."""
        tools = [*TOOLS, {"name": "odd", "parameters": {"type": "object", **schema}}]
        try:
            assert_documented(Improver(model, config()).answer(ASK, tools))
        except RequestError as error:
            assert "odd" in str(error)

    @pytest.mark.parametrize("method", ["base", "tt-si"])
    def test_whatever_the_model_says_can_be_told(self, model: LanguageModel, method: str) -> None:
        """Unconstrained, a model may write NaN, which Python reads and JSON does not know."""
        real = Improver._decode

        def decode(self: Improver, *args: Any) -> list[Generation]:
            text = '[{"name": "set_light", "arguments": {"level": NaN, "to": 1e999}}]'
            return [replace(one, text=text) for one in real(self, *args)]

        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(Improver, "_decode", decode)
            assert_documented(cycle(model, method=method, decoding={"constrained": False}))

    def test_conversations_with_past_calls(self, model: LanguageModel) -> None:
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Light to 20"},
            {"role": "assistant", "tool_calls": [{"function": {**SAID.to_json()}}]},
            {"role": "tool", "content": "done"},
            {"role": "user", "content": ASK},
        ]
        before = mix_up(model)
        answer = Improver(model, config()).answer(messages, TOOLS)
        before.assert_still(model)
        assert_documented(answer)


class TestDraft:
    """One draft may be improved by several methods: that is how they are compared."""

    SETTINGS: ClassVar[dict[str, dict[str, Any]]] = {
        "base": {"method": "base"},
        "tt-si": {},
        "tt-icl": {"method": "tt-icl"},
        "full": {"learning": {"mode": "full"}},
        "rss": {"awareness": {"estimator": "rss-calls"}},
        "call-first": {"augmentation": {"strategy": "call-first"}},
        "repaired": {"repair": True},
        "sure": {"awareness": {"threshold": 0}},
        "again": {},
    }

    @pytest.mark.parametrize("ask", [ASK, "Hello"])
    def test_improved_in_turn_is_answered_alone(self, model: LanguageModel, ask: str) -> None:
        request = Request.parse(ask, TOOLS, "r1")
        draft = Improver(model, config(method="base")).draft(request)
        before = State.of(model)
        prefix = [(layer.keys.clone(), layer.values.clone()) for layer in layers(draft)]
        for name, settings in self.SETTINGS.items():
            together = Improver(model, config(**settings)).improve(draft)
            alone = Improver(model, config(**settings)).answer_request(request)
            assert without_seconds(together) == without_seconds(alone), name
            assert_documented(together)
        before.assert_still(model)
        for layer, (keys, values) in zip(layers(draft), prefix, strict=True):
            assert torch.equal(layer.keys, keys)
            assert torch.equal(layer.values, values)

    def test_base_gives_the_draft(self, model: LanguageModel) -> None:
        improver = Improver(model, config(method="base"))
        draft = improver.draft(Request.parse(ASK, TOOLS))
        answer = improver.improve(draft)
        assert (answer.content, answer.tool_calls) == (draft.reply.content, draft.reply.tool_calls)
        assert answer.episode.draft == draft.reply
        assert draft.call_format == "json"
        assert dict(answer.episode.seconds) == dict(draft.seconds)

    def test_its_seconds_are_counted_once_for_each(self, model: LanguageModel) -> None:
        improver = Improver(model, config())
        draft = improver.draft(Request.parse(ASK, TOOLS))
        drafted = dict(draft.seconds)
        assert list(drafted) == ["prefill", "draft"]
        for _ in range(2):
            seconds = improver.improve(draft).episode.seconds
            assert {stage: seconds[stage] for stage in drafted} == drafted
            assert seconds["practice"] > 0
        assert dict(draft.seconds) == drafted

    def test_what_the_draft_took_is_off_the_budget(self, model: LanguageModel) -> None:
        improver = Improver(model, config(budget_seconds=1e5))
        draft = improver.draft(Request.parse(ASK, TOOLS))
        assert improver.improve(draft).episode.practised
        late = replace(draft, seconds={"prefill": 6e4, "draft": 6e4})
        answer = improver.improve(late)
        assert answer.episode.fallback == "the time budget is spent"
        assert answer.tool_calls == (SAID,)


def layers(draft: Draft) -> list[Any]:
    return list(draft.context.prefix.cache.layers)


def says(patches: pytest.MonkeyPatch, *texts: str) -> list[str]:
    """The texts of draft and final answer; returns the prompts that were really decoded."""
    real, prompts = Improver._decode, []

    def decode(
        self: Improver, contexts: Sequence[Context], asks: Sequence[Ask], *args: Any
    ) -> list[Generation]:
        ((context,), (ask,)) = contexts, asks
        prompts.append(self.model.decode([*context.prefix.ids, *ask.turn]))
        (generation,) = real(self, contexts, asks, *args)
        return [replace(generation, text=texts[len(prompts) - 1], finished=True)]

    patches.setattr(Improver, "_decode", decode)
    return prompts


SAID_TEXT = '[{"name": "set_light", "arguments": {"level": 40}}]'


class TestInContext:
    """tt-icl: practice is read, nothing is learnt."""

    @pytest.fixture
    def turns(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        return says(monkeypatch, SAID_TEXT, SAID_TEXT)

    def test_practice_is_told_as_turns_before_the_request(
        self, model: LanguageModel, turns: list[str]
    ) -> None:
        said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK}]
        answer = Improver(model, config(method="tt-icl")).answer(said, TOOLS)
        assert answer.episode.practised, answer.episode.fallback
        assert answer.episode.method == "tt-icl"
        drafted, final = turns
        parts = []
        for example in answer.episode.examples:
            call = toolcalls.write(example.tool_calls, "json", ())
            parts += [f"user\n{example.user_text}", f"assistant\n{call}"]
        told = "".join(f"<|im_start|>{part}<|im_end|>" for part in parts)
        head, tail = drafted.split(f"<|im_start|>user\n{ASK}")
        assert final == f"{head}{told}<|im_start|>user\n{ASK}{tail}"
        assert len(answer.episode.examples) == 2
        assert final.count("Be brief.") == 1

    def test_a_conversation_stays_together(self, model: LanguageModel, turns: list[str]) -> None:
        said = [
            {"role": "user", "content": "Light to 20"},
            {"role": "assistant", "tool_calls": [{"function": {**SAID.to_json()}}]},
            {"role": "tool", "content": "done"},
            {"role": "user", "content": ASK},
        ]
        answer = Improver(model, config(method="tt-icl")).answer(said, TOOLS)
        assert answer.episode.practised, answer.episode.fallback
        drafted, final = turns
        talk = drafted[drafted.index("<|im_start|>user") :]
        assert final.endswith(talk)
        assert len(final) > len(drafted)

    @pytest.mark.usefixtures("turns")
    def test_nothing_is_trained(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            pytest.fail("something was trained")

        inside = []
        real = Improver._answer

        def watch(self: Improver, *args: Any) -> Any:
            inside.append(State.of(self.model))
            return real(self, *args)

        monkeypatch.setattr(Improver, "_answer", watch)
        monkeypatch.setattr(improve, "practised_together", fail)
        monkeypatch.setattr(torch.Tensor, "backward", fail)
        monkeypatch.setattr(torch.optim.AdamW, "__init__", fail)
        before = mix_up(model)
        answer = cycle(model, method="tt-icl")
        before.assert_still(model)
        inside[0].assert_still(model)
        assert answer.episode.practised
        assert answer.episode.losses == ()
        assert "practice" not in answer.episode.seconds
        assert answer.episode.seconds["answer"] > 0
        assert_documented(answer)

    def test_practice_that_does_not_fit_is_left(self, model: LanguageModel) -> None:
        """The draft fits into the model's context, the draft with practice does not."""
        model.context_length = len(model.render(Request.parse(ASK, TOOLS).messages, ())) + 250
        draft = Improver(model, config(method="tt-icl")).draft(Request.parse(ASK, TOOLS))
        model.context_length = len(draft.context.prefix.ids) + len(draft.context.turn) + 20
        answer = Improver(model, config(method="tt-icl")).improve(draft)
        assert answer.episode.fallback is not None
        assert "the model reads" in answer.episode.fallback
        assert answer.tool_calls == (SAID,)
        assert not answer.episode.practised

    @pytest.mark.parametrize("error", [Fault, KeyboardInterrupt])
    def test_a_fault_leaves_no_trace(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
    ) -> None:
        before = mix_up(model)
        answer_decoding(monkeypatch, error)
        if error is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                cycle(model, method="tt-icl")
        else:
            answer = cycle(model, method="tt-icl")
            assert answer.episode.fallback == "answer failed: Fault: broken"
            assert answer.tool_calls == (SAID,)
        before.assert_still(model)


OPTIONAL: dict[str, Any] = {
    "name": "set_light",
    "parameters": {
        "type": "object",
        "properties": {
            "level": {"type": "integer", "minimum": 10, "maximum": 99},
            "colour": {"type": "string"},
        },
        "required": [],
    },
}


class TestRepair:
    """A switch; it acts on whatever the answer is, and the episode tells the draft as it was."""

    VELVET = '[{"name": "set_light", "arguments": {"level": 40, "colour": "velvet"}}]'

    @pytest.mark.parametrize("repaired", [True, False])
    @pytest.mark.parametrize(
        ("stages", "practised"),
        [
            ({"method": "base"}, False),
            ({"awareness": {"threshold": 0}}, False),  # sure
            ({"budget_seconds": 1e-6}, False),  # practice failed
            ({}, True),
            ({"method": "tt-icl"}, True),
        ],
        ids=["draft", "sure", "failed", "tt-si", "tt-icl"],
    )
    def test_of_every_answer(
        self,
        model: LanguageModel,
        monkeypatch: pytest.MonkeyPatch,
        stages: dict[str, Any],
        practised: bool,
        repaired: bool,
    ) -> None:
        says(monkeypatch, self.VELVET, self.VELVET.replace("40", "41"))
        as_practised = {"keep_stated": False}
        improver = Improver(model, config(repair=repaired, learning=as_practised, **stages))
        answer = improver.answer(ASK, [OPTIONAL])
        assert_documented(answer)
        assert answer.episode.practised == practised, answer.episode.fallback
        (call,) = answer.tool_calls
        level = 41 if practised else 40
        assert call.arguments == {"level": level, **({} if repaired else {"colour": "velvet"})}
        told = 'set_light: colour = "velvet" taken out, the request does not state it'
        assert answer.episode.repaired == ((told,) if repaired else ())
        assert answer.to_json()["episode"]["repaired"] == list(answer.episode.repaired)
        (drafted,) = answer.episode.draft.tool_calls
        assert drafted.arguments == {"level": 40, "colour": "velvet"}

    def test_that_fails_costs_neither_answer_nor_practice(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise Fault("broken")

        for judgement in ("ground_all", "ground_call"):
            monkeypatch.setattr(improve.repair, judgement, broken)
        answer = cycle(model, repair=True)
        assert answer.tool_calls == (SAID,)
        assert (answer.episode.practised, answer.episode.fallback) == (True, None)
        assert answer.episode.notes == (
            "keeping what the draft states failed: Fault: broken",
            "repair failed: Fault: broken",
        )
        assert_documented(answer)

    def test_changes_nothing_of_how_the_answer_came_about(self, model: LanguageModel) -> None:
        plain, mended = (without_seconds(cycle(model, repair=on)) for on in (False, True))
        assert plain == mended


class TestRemembered:
    """The practice memory: the second time practice is not written, and all else is the same."""

    def test_the_answer_is_the_same(
        self, model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = {"augmentation": {"memory": tmp_path, "strategy": "substitution"}}
        fresh = without_seconds(cycle(model, augmentation={"strategy": "substitution"}))
        first = without_seconds(cycle(model, **settings))
        assert first == fresh

        def fail(*_: object) -> None:
            pytest.fail("practice was written again")

        monkeypatch.setattr(synthesis_module, "analyse", fail)
        again = without_seconds(cycle(model, **settings))
        assert again["episode"].pop("notes") == ["practice remembered"]
        assert first["episode"].pop("notes") == []
        assert again["episode"].pop("rejected") == []
        first["episode"].pop("rejected")
        assert again == first
        assert again["episode"]["practised"]
        icl = cycle(model, method="tt-icl", **settings)
        assert icl.episode.notes == ("practice remembered",)
        assert list(icl.to_json()["episode"]["examples"]) == again["episode"]["examples"]

    def test_another_request_is_not_the_same(self, model: LanguageModel, tmp_path: Path) -> None:
        settings = {"augmentation": {"memory": tmp_path}}
        cycle(model, **settings)
        for ask, tools in (("Light to 40!", TOOLS), (ASK, [*TOOLS, OPTIONAL | {"name": "x"}])):
            answer = Improver(model, config(**settings)).answer(ask, tools)
            assert "practice remembered" not in answer.episode.notes

    def test_a_trained_model_is_another(self, model: LanguageModel, tmp_path: Path) -> None:
        settings = {"augmentation": {"memory": tmp_path}}
        cycle(model, **settings)
        model.network.model.layers[1].mlp.up_proj.weight.mul_(1.0001)
        trained = LanguageModel(model.network, model.tokenizer, model.name)
        assert cycle(trained, **settings).episode.notes == ()

    def test_a_known_example_is_remembered_and_left_out_again(
        self, model: LanguageModel, tmp_path: Path
    ) -> None:
        both = cycle(model).to_json()["episode"]["examples"]
        between = sum(cycle_losses(model, example) for example in both) / 2
        settings = {"augmentation": {"memory": tmp_path, "informative_loss": between}}
        first, again = (cycle(model, **settings) for _ in range(2))
        assert again.episode.notes == ("practice remembered",)
        assert again.episode.rejected[-1] == first.episode.rejected[-1]
        assert again.episode.rejected[-1].reason == "the model already answers it"
        assert again.episode.losses == first.episode.losses

    def test_a_folder_that_fails_is_noted(self, model: LanguageModel, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        answer = cycle(model, augmentation={"memory": tmp_path / "file"})
        assert answer.episode.practised
        (note,) = answer.episode.notes
        assert "cannot be used" in note
        assert_documented(answer)


class TestMemory:
    CYCLES, WARM, MEGABYTES = 200, 40, 4

    def test_two_hundred_cycles_leave_it_flat(self, model: LanguageModel) -> None:
        """One adapter with its Adam state is about 0.7 MB here: kept, they would be over 100."""
        improver = Improver(model, config(learning={"epochs": 1}))
        process = psutil.Process()
        for number in range(self.CYCLES):
            assert improver.answer(ASK, TOOLS).episode.practised
            if number == self.WARM - 1:
                gc.collect()
                warm = process.memory_info().rss
        gc.collect()
        grown = (process.memory_info().rss - warm) / 2**20
        assert grown < self.MEGABYTES


LIGHT_CALL = {"name": "set_light", "arguments": '{"level": 40}'}
CALLS = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_1", "type": "function", "function": LIGHT_CALL}],
}


class TestTeacher:
    """A real server teaches, well or badly."""

    @staticmethod
    def taught(model: LanguageModel, server: NaughtyServer, **stages: Any) -> Answer:
        teacher = {"url": server.url, "model": "m", "timeout": 0.5, "retries": 0}
        teacher |= stages.pop("teacher", {})
        settings = config(method="tt-d", teacher=teacher, **stages)
        before = State.of(model)
        answer = Improver(model, settings, load_teacher(settings)).answer(ASK, TOOLS)
        before.assert_still(model)
        assert_documented(answer)
        return answer

    def test_decides_the_call_that_practice_is_written_around(
        self, model: LanguageModel, naughty_server: Callable[..., NaughtyServer]
    ) -> None:
        server = naughty_server(says=CALLS)
        episode = self.taught(model, server).episode
        assert episode.practised
        assert [example.source for example in episode.examples] == ["substitution"] * 2
        assert all(e.tool_calls[0].arguments["level"] != 40 for e in episode.examples)
        assert server.bodies[0]["tools"][0]["function"]["name"] == "set_light"
        assert episode.notes == ()

    def test_that_calls_nothing_teaches_its_words(
        self, model: LanguageModel, naughty_server: Callable[..., NaughtyServer]
    ) -> None:
        episode = self.taught(model, naughty_server(says="40 is too bright")).episode
        assert [example.tool_calls for example in episode.examples] == [(), ()]
        for example in episode.examples:
            level = example.messages[-1].content.removeprefix("Light to ")
            assert level != "40"
            assert example.content == f"{level} is too bright"
        assert episode.losses

    def test_writes_question_and_answer(
        self, model: LanguageModel, naughty_server: Callable[..., NaughtyServer]
    ) -> None:
        written = {"request": "Set it to 55", "name": "set_light", "arguments": {"level": 55}}
        server = naughty_server(says=json.dumps(written))
        settings = {"strategy": "question-answer", "examples": 1}
        episode = self.taught(model, server, augmentation=settings).episode
        assert [e.user_text for e in episode.examples] == ["Set it to 55"]
        assert episode.examples[0].tool_calls == (ToolCall("set_light", {"level": 55}),)

    @pytest.mark.parametrize("mode", ["slow", "500", "truncated", "html", "reset", "no-choices"])
    def test_that_fails_lets_the_model_teach_itself(
        self, model: LanguageModel, naughty_server: Callable[..., NaughtyServer], mode: str
    ) -> None:
        server = naughty_server(mode)
        episode = self.taught(model, server).episode
        assert episode.practised
        assert len(episode.examples) == 2
        assert server.host in episode.notes[0]
        assert episode.notes[0].endswith("; the model taught itself")

    def test_that_fails_may_cost_the_practice(
        self, model: LanguageModel, naughty_server: Callable[..., NaughtyServer]
    ) -> None:
        server = naughty_server("500")
        answer = self.taught(model, server, teacher={"fallback": "draft"})
        assert not answer.episode.practised
        assert server.host in str(answer.episode.fallback)
        assert answer.tool_calls == answer.episode.draft.tool_calls

    @pytest.mark.parametrize(
        "lie",
        [
            {"name": "launch", "arguments": "{}"},
            {"name": "set_light", "arguments": '{"level": "bright"}'},
            {"name": "set_light", "arguments": '{"level": 41}'},
        ],
    )
    def test_that_lies_is_found_out(
        self, model: LanguageModel, naughty_server: Callable[..., NaughtyServer], lie: Any
    ) -> None:
        said = {**CALLS, "tool_calls": [{"id": "1", "type": "function", "function": lie}]}
        episode = self.taught(model, naughty_server(says=said)).episode
        assert episode.notes[0].endswith("; the model taught itself")
        assert all(
            e.user_text == f"Light to {e.tool_calls[0].arguments['level']}"
            for e in episode.examples
        )

    def test_is_not_asked_by_a_sure_model(
        self, model: LanguageModel, naughty_server: Callable[..., NaughtyServer]
    ) -> None:
        server = naughty_server(says=CALLS)
        answer = self.taught(model, server, awareness={"threshold": 0})
        assert server.bodies == []
        assert not answer.episode.practised

    def test_has_no_more_time_than_the_request(
        self, model: LanguageModel, naughty_server: Callable[..., NaughtyServer]
    ) -> None:
        start = time.monotonic()
        answer = self.taught(
            model, naughty_server("slow"), teacher={"timeout": 60}, budget_seconds=0.5
        )
        assert time.monotonic() - start < 5
        assert answer.episode.fallback == "the time budget is spent"

    def test_whose_words_cannot_be_varied_teaches_nothing(
        self, model: LanguageModel, naughty_server: Callable[..., NaughtyServer]
    ) -> None:
        """Practice on the user's own request would show its answer by the teacher."""
        server = naughty_server(says="No tool can do that")
        only = {"type": "object", "properties": {"state": {"type": "string", "enum": ["on"]}}}
        settings = config(
            method="tt-d", teacher={"url": server.url, "model": "m", "fallback": "draft"}
        )
        asked = Request.parse("Turn it on", [{"name": "turn", "parameters": only}])
        drafted = replace(
            Improver(model, config()).draft(asked),
            reply=Reply("", (ToolCall("turn", {"state": "on"}),)),
            call_format="json",
        )
        episode = Improver(model, settings, load_teacher(settings)).improve(drafted).episode
        assert episode.examples == ()
        assert {rejected.reason for rejected in episode.rejected} == {
            "it copies the user's request or another example"
        }
        assert not episode.practised

    def test_must_be_there(self, model: LanguageModel) -> None:
        with pytest.raises(ConfigError, match="needs a teacher"):
            Improver(model, config(method="tt-d"))

    def test_has_nothing_to_do_under_another_method(self, model: LanguageModel) -> None:
        settings = config()
        with pytest.raises(ConfigError, match="method tt-si has no teacher; set method tt-d"):
            Improver(model, settings, LocalTeacher(Decoder(model), settings.decoding))

    def test_may_be_a_second_model(self, model: LanguageModel) -> None:
        settings = config(method="tt-d", teacher={"model": "second"})
        second = LocalTeacher(Decoder(model), settings.decoding)
        episode = Improver(model, settings, second).answer(ASK, TOOLS).episode
        assert episode.practised
        assert episode.notes == ()


class TestNoTool:
    """Beside practised calls stands one request that the model itself answers without a call."""

    def test_is_practised_in_the_models_own_words(self, model: LanguageModel) -> None:
        episode = cycle(model, augmentation={"no_tool": True}).episode
        *calls, other = episode.examples
        assert [example.source for example in calls] == ["substitution"] * 2
        assert (other.source, other.tool_calls) == ("no-tool", ())
        assert other.content
        assert episode.practised

    def test_is_rejected_where_the_model_calls_even_then(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask = Example((Message("user", ASK),), (), "no-tool", "No.")  # what it was taught to call
        monkeypatch.setattr(synthesis_module, "no_tool_example", lambda *_: ask)
        episode = cycle(model, augmentation={"no_tool": True}).episode
        assert [example.source for example in episode.examples] == ["substitution"] * 2
        assert "itself" in episode.rejected[-1].reason

    def test_alone_is_not_practised(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def losses(*_: object) -> Tensor:
            return torch.tensor([0.1, 0.1, 5.0], requires_grad=True) * 1.0

        monkeypatch.setattr(practice.Losses, "of", losses)
        settings = {"no_tool": True, "informative_loss": 1.0}
        answer = cycle(model, augmentation=settings, learning={"epochs": 1})
        assert not answer.episode.practised
        assert answer.episode.fallback == "the model already answers every practised call"
        assert answer.tool_calls == answer.episode.draft.tool_calls

    def test_words_in_place_of_a_call_are_no_answer(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A small model may copy the example that calls nothing, above all from its context."""
        improver = Improver(model, config(method="tt-icl", augmentation={"no_tool": True}))
        draft = improver.draft(Request.parse(ASK, TOOLS))
        words = Generation((), "Cold is the opposite of hot.", (), True)
        monkeypatch.setattr(Improver, "_decode", lambda *_: [words])
        answer = improver.improve(draft)
        assert answer.episode.fallback == "the practised answer is not valid: it calls nothing"
        assert answer.tool_calls == draft.reply.tool_calls == (SAID,)
        assert answer.episode.examples[-1].source == "no-tool"


class TestMany:
    """Requests answered side by side get the answers that they would get alone."""

    OTHER: ClassVar[list[dict[str, Any]]] = [
        *TOOLS,
        {"name": "stop", "description": "Ends it all.", "parameters": {"type": "object"}},
    ]
    ASKED: ClassVar[list[Request]] = [
        Request.parse(ASK, TOOLS, "one"),
        Request.parse("Lamp to 75 please", TOOLS, "two"),
        Request.parse("Light to 12", OTHER, "three"),
        Request.parse("Hello", None, "plain"),
        Request.parse([{"role": "system", "content": "Be brief."},
                       {"role": "user", "content": "Light to 33"}], TOOLS, "four"),
    ]  # fmt: skip

    def assert_as_alone(self, improver: Improver, at_once: int = 8) -> list[Answer]:
        before = State.of(improver.model)
        many = improver.answer_many(self.ASKED, at_once)
        before.assert_still(improver.model)
        for request, answer in zip(self.ASKED, many, strict=True):
            assert_documented(answer)
            ours, alone = without_seconds(answer), without_seconds(improver.answer_request(request))
            told = [one["episode"].pop("losses") for one in (ours, alone)]
            assert told[0] == pytest.approx(told[1], abs=1e-4)
            told = [one["episode"].pop("certainty") for one in (ours, alone)]
            assert told[0] == pytest.approx(told[1], abs=1e-4)
            scores = [
                [c.pop("log_prob") for c in one["episode"]["candidates"]] for one in (ours, alone)
            ]
            assert scores[0] == pytest.approx(scores[1], abs=1e-3)
            assert ours == alone
        return many

    @pytest.mark.parametrize("at_once", [8, 2])
    @pytest.mark.parametrize("mode", MODES)
    def test_all_unsure(self, model: LanguageModel, mode: str, at_once: int) -> None:
        settings = config(learning={"mode": mode}, decoding={"max_new_tokens": 64})
        many = self.assert_as_alone(Improver(model, settings), at_once)
        practised = [answer.episode.practised for answer in many]
        assert sum(practised) >= 2
        assert not all(practised), "some fall back"
        assert [answer.id for answer in many] == [request.id for request in self.ASKED]

    @pytest.mark.parametrize("method", ["base", "tt-icl"])
    def test_of_every_method(self, model: LanguageModel, method: str) -> None:
        self.assert_as_alone(
            Improver(model, config(method=method, decoding={"max_new_tokens": 64}))
        )

    def test_some_are_sure(self, model: LanguageModel) -> None:
        improver = Improver(model, config(decoding={"max_new_tokens": 64}))
        told = sorted(
            answer.episode.certainty or 0.0 for answer in improver.answer_many(self.ASKED)
        )
        threshold = (told[1] + told[2]) / 2
        many = self.assert_as_alone(
            Improver(
                model,
                config(awareness={"threshold": threshold}, decoding={"max_new_tokens": 64}),
            )
        )
        sure = [answer for answer in many if (answer.episode.certainty or 0) >= threshold]
        assert len(sure) == 3
        assert not any(a.episode.practised or a.episode.fallback for a in sure)

    @pytest.mark.parametrize("stage", ["awareness", "synthesis", "practice", "answer"])
    @pytest.mark.parametrize("mode", MODES)
    def test_a_fault_of_one_is_its_own(
        self, model: LanguageModel, mode: str, stage: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = [replace(request) for request in self.ASKED if request.id != "plain"]
        settings = config(learning={"mode": mode}, decoding={"max_new_tokens": 64})
        improver = Improver(model, settings)
        expected = {one.id: without_seconds(one) for one in improver.answer_many(asked)}
        practised = [one for one in expected if expected[one]["episode"]["practised"]]
        owner: Any = improve
        name = {"awareness": "assess", "synthesis": "synthesise", "answer": "_accepted"}.get(stage)
        if name is None:
            owner, name = Improver, "_review"
        real = getattr(owner, name)

        def faulty(*args: Any) -> Any:
            drafts = [getattr(arg, "draft", arg) for arg in args]
            if any(isinstance(d, Draft) and d.context.request.id == broken for d in drafts):
                raise Fault("broken")
            return real(*args)

        monkeypatch.setattr(owner, name, faulty)
        for broken in practised[:1] + practised[-1:]:
            before = State.of(model)
            many = improver.answer_many(asked)
            before.assert_still(model)
            for answer in many:
                if answer.id == broken:
                    assert answer.episode.fallback == f"{stage} failed: Fault: broken"
                    assert answer.tool_calls == answer.episode.draft.tool_calls
                else:
                    told = without_seconds(answer)
                    losses = expected[answer.id]["episode"]["losses"]
                    assert told["episode"]["losses"] == pytest.approx(losses, abs=1e-4)
                    assert told["tool_calls"] == expected[answer.id]["tool_calls"]
                    assert told["content"] == expected[answer.id]["content"]
                    assert (
                        told["episode"]["practised"] == expected[answer.id]["episode"]["practised"]
                    )

    def test_an_unreadable_one_raises_before_anything_is_decoded(
        self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Decoder, "decode", lambda *_, **__: pytest.fail("decoded"))
        with pytest.raises(RequestError, match="reads 4096"):
            Improver(model, config()).answer_many([*self.ASKED, Request.parse("x" * 5000)])

    def test_none(self, model: LanguageModel) -> None:
        assert Improver(model, config()).answer_many([]) == []

    def test_ctrl_c(self, model: LanguageModel) -> None:
        before = mix_up(model)
        settings = config(learning={"epochs": 5_000}, decoding={"max_new_tokens": 64})
        with ctrl_c_after(1.5), pytest.raises(KeyboardInterrupt):
            Improver(model, settings).answer_many(self.ASKED)
        before.assert_still(model)
