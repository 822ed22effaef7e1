"""The model's one home: rendering, the split in prefix and turn, cached and padded passes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3NextConfig

from quickstudy import toolcalls
from quickstudy.config import ModelConfig
from quickstudy.errors import ModelError, RequestError
from quickstudy.model import LanguageModel, Prefix, _boundary, start
from quickstudy.types import Message, Request, ToolCall

TOOLS = [
    {
        "name": "set_light",
        "description": "Sets a light.",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "level": {"type": "integer"}},
        },
    },
    {"name": "play", "parameters": {"type": "object", "properties": {"song": {"type": "string"}}}},
]
NO_TOOLS_TEMPLATE = (
    "{%- for m in messages -%}"
    "{%- if m.role == 'tool' -%}{{- raise_exception('no tools here') -}}{%- endif -%}"
    "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
CALL = ToolCall("set_light", {"room": "attic", "level": 3})
CONVERSATION = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "Light in the attic to 3"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": CALL.to_json()}]},
    {"role": "tool", "content": "the lamp is broken"},
    {"role": "user", "content": "Then the hall"},
]


def request(text: str = "Light in the attic!", tools: Any = TOOLS) -> Request:
    return Request.parse(text, tools)


def whole_logits(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        return model.network(torch.tensor([list(ids)]), use_cache=False).logits[0].float()


def random_ids(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count,), generator=generator).tolist()


def made_prefix(model: LanguageModel, ids: list[int]) -> Prefix:
    cache = model.empty_prefix().cache
    with torch.no_grad():
        model.network(torch.tensor([ids]), past_key_values=cache, logits_to_keep=1)
    return Prefix(tuple(ids), cache)


def with_template(model: LanguageModel, template: str) -> LanguageModel:
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = template
    return LanguageModel(model.network, tokenizer, "other")


class TestTokens:
    def test_control_tokens_are_single(self, tiny: LanguageModel) -> None:
        text = "<|im_start|>user\nHé <tool_call>{}</tool_call><|im_end|>"
        ids = tiny.encode(text)
        assert tiny.decode(ids) == text
        for control in ("<|im_start|>", "<tool_call>", "</tool_call>", "<|im_end|>"):
            assert tiny.single_tokens[control] in ids

    def test_an_answer_is_closed(self, tiny: LanguageModel) -> None:
        ids = tiny.answer_ids("[]")
        assert ids[:-1] == tiny.encode("[]")
        assert ids[-1] in tiny.eos_ids

    def test_every_end_of_turn_token_counts(self, tiny: LanguageModel) -> None:
        extra = tiny.tokenizer.pad_token_id
        tiny.network.generation_config.eos_token_id = [extra]
        assert tiny.eos_ids == {extra, tiny.tokenizer.eos_token_id}

    def test_no_end_of_turn_token_in_the_generation_config(self, tiny: LanguageModel) -> None:
        tiny.network.generation_config.eos_token_id = None
        assert tiny.eos_ids == {tiny.tokenizer.eos_token_id}

    def test_a_base_model_is_refused(self, tiny: LanguageModel) -> None:
        tiny.tokenizer.chat_template = None
        with pytest.raises(ModelError, match=r"(?s)basic.*base model.*-Instruct"):
            LanguageModel(tiny.network, tiny.tokenizer, "basic")

    @pytest.mark.parametrize("kind", ["linear_attention", "full_attention"])
    def test_layers_that_keep_a_state_are_refused(self, tiny: LanguageModel, kind: str) -> None:
        config = Qwen3NextConfig(
            vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8, num_experts=0,
            linear_num_key_heads=1, linear_num_value_heads=1, layer_types=[kind],
        )  # fmt: skip
        hybrid = AutoModelForCausalLM.from_config(config)
        with pytest.raises(ModelError, match="hybrid has layers that") as refused:
            LanguageModel(hybrid, tiny.tokenizer, "hybrid")
        assert ("(linear_attention)" in str(refused.value)) == (kind == "linear_attention")


class TestRender:
    def test_a_template_that_knows_tools_lists_them(self, tiny: LanguageModel) -> None:
        assert tiny.template_knows_tools
        text = tiny.decode(tiny.render(request().messages, request().tools))
        assert '"set_light"' in text
        assert '"play"' in text
        assert text.endswith("<|im_start|>assistant")

    @pytest.mark.parametrize("call_format", ["json", "tagged", "fenced"])
    def test_other_templates_are_told_in_words(
        self, tiny: LanguageModel, call_format: toolcalls.CallFormat
    ) -> None:
        model = with_template(tiny, NO_TOOLS_TEMPLATE)
        assert not model.template_knows_tools
        asked = Request.parse(CONVERSATION, TOOLS)
        text = model.decode(model.render(asked.messages, asked.tools, call_format))
        system = text.split("<|im_end|>", 1)[0]
        assert system.startswith("<|im_start|>system\nYou are terse.")
        assert '"set_light"' in system
        assert '"play"' in system
        assert text.count("<|im_start|>system") == 1
        assert toolcalls.write([CALL], call_format, asked.tools) in text
        assert "<|im_start|>user\nTool result: the lamp is broken<|im_end|>" in text
        assert text.endswith("<|im_start|>user\nThen the hall<|im_end|>\n<|im_start|>assistant\n")

    def test_without_tools_nothing_is_told_of_them(self, tiny: LanguageModel) -> None:
        model = with_template(tiny, NO_TOOLS_TEMPLATE)
        text = model.decode(model.render(request().messages, ()))
        assert text == "<|im_start|>user\nLight in the attic!<|im_end|>\n<|im_start|>assistant\n"

    def test_messages_the_template_refuses(self, tiny: LanguageModel) -> None:
        """What it says of the messages as they are, not of the last thing that was tried."""
        refusing = (
            "{%- for m in messages if m.role != 'user' -%}"
            "{{- raise_exception('no ' + m.role) -}}{%- endfor -%}"
        )
        told = [{"role": "user", "content": "x"}, {"role": "tool", "content": "y"}]
        told.append({"role": "assistant", "content": "z"})
        with pytest.raises(RequestError, match=r"refuses the messages: no tool$"):
            with_template(tiny, refusing).render(Request.parse(told).messages, ())


class TestPrefill:
    def test_prefix_and_turn_are_the_prompt(self, tiny: LanguageModel) -> None:
        asked = request()
        context = tiny.prefill(asked)
        assert [*context.prefix.ids, *context.turn] == tiny.render(asked.messages, asked.tools)
        assert "play" in tiny.decode(context.prefix.ids)
        assert asked.messages[0].content not in tiny.decode(context.prefix.ids)
        assert context.prefix.ids[-1] in tiny.single_tokens.values()
        assert context.prefix.cache.get_seq_length() == len(context.prefix.ids)
        for layer in context.prefix.cache.layers:
            assert not layer.keys.requires_grad

    def test_other_conversations_share_the_prefix(self, tiny: LanguageModel) -> None:
        context = tiny.prefill(request())
        for text in ("?", "Light in the hall", "<|im_end|>", "\n\n", "é"):
            asked = request(text)
            turn = tiny.turn(context, asked.messages, "json")
            assert turn is not None
            assert [*context.prefix.ids, *turn] == tiny.render(asked.messages, asked.tools)

    def test_the_prefix_is_the_system_turn_also_in_a_long_conversation(
        self, tiny: LanguageModel
    ) -> None:
        context = tiny.prefill(Request.parse(CONVERSATION, TOOLS))
        told = tiny.decode(context.prefix.ids)
        assert "You are terse." in told
        assert "attic" not in told
        fresh = [Message("system", "You are terse."), Message("user", "The cellar to 9")]
        assert tiny.turn(context, fresh, "json") is not None

    def test_another_system_prompt_does_not_share_it(self, tiny: LanguageModel) -> None:
        context = tiny.prefill(Request.parse(CONVERSATION, TOOLS))
        other = [Message("system", "You are not terse."), Message("user", "Then the hall")]
        assert tiny.turn(context, other, "json") is None

    def test_nothing_shared_is_an_empty_prefix(self, tiny: LanguageModel) -> None:
        model = with_template(tiny, "{{ messages[-1].content }}")
        context = model.prefill(Request.parse("Hello"))
        assert context.prefix.ids == ()
        assert list(context.turn) == model.encode("Hello")
        assert context.prefix.cache.get_seq_length() == 0
        logits, _ = model.forward([context.turn], context.prefix.fork(), None, keep=1)
        whole = whole_logits(model, context.turn)[-1]
        torch.testing.assert_close(logits[0, -1], whole, rtol=0, atol=1e-5)

    def test_a_prompt_as_long_as_the_context_is_too_long(self, tiny: LanguageModel) -> None:
        asked = request()
        length = len(tiny.render(asked.messages, asked.tools))
        tiny.network.config.max_position_embeddings = length
        with pytest.raises(RequestError) as caught:
            tiny.prefill(asked)
        told = str(caught.value)
        assert f"{length} tokens" in told
        assert f"reads {length}" in told
        assert "fewer tools" in told

    def test_a_prompt_that_leaves_one_place_fits(self, tiny: LanguageModel) -> None:
        asked = request()
        length = len(tiny.render(asked.messages, asked.tools))
        tiny.network.config.max_position_embeddings = length + 1
        assert tiny.prefill(asked).turn

    def test_a_far_too_long_prompt_names_both_lengths(self, tiny: LanguageModel) -> None:
        with pytest.raises(RequestError, match=r"5\d\d\d tokens.*reads 4096"):
            tiny.prefill(request("x" * 5000))


class TestBoundary:
    SINGLE = frozenset({90, 91})

    @pytest.mark.parametrize(
        ("ids", "other", "cut"),
        [
            ([1, 90, 2, 3, 4], [1, 90, 2, 5], 2),  # back to the control token
            ([1, 90, 2, 91, 3], [1, 90, 2, 91, 4], 4),  # the last one counts
            ([90, 1, 91], [90, 1, 90], 1),  # a control token that differs is not shared
            ([1, 2, 3], [1, 2, 4], 0),  # none is shared
            ([90, 1], [90, 1], 1),  # equal to the end
            ([1, 90], [1, 90, 5], 2),
            ([], [1], 0),
            ([5, 90], [6, 90], 0),
        ],
    )
    def test_cuts(self, ids: list[int], other: list[int], cut: int) -> None:
        assert _boundary(ids, other, self.SINGLE) == cut

    @given(
        st.lists(st.sampled_from([1, 2, 90, 91])),
        st.lists(st.sampled_from([1, 2, 90, 91])),
        st.lists(st.sampled_from([1, 2, 90, 91]), max_size=4),
    )
    def test_is_the_longest_shared_start_that_ends_in_a_control_token(
        self, left: list[int], right: list[int], start: list[int]
    ) -> None:
        ids, other = start + left, start + right
        fits = [
            cut
            for cut in range(1, len(ids) + 1)
            if ids[:cut] == other[:cut] and ids[cut - 1] in self.SINGLE
        ]
        assert _boundary(ids, other, self.SINGLE) == max(fits, default=0)


class TestForward:
    PREFIX, ROWS = 70, (31, 5, 1, 18)

    def test_a_cached_pass_gives_the_logits_of_the_whole(self, tiny: LanguageModel) -> None:
        prefix, new = random_ids(self.PREFIX, 0), random_ids(20, 1)
        logits, seen = tiny.forward([new], made_prefix(tiny, prefix).fork(), None, keep=20)
        whole = whole_logits(tiny, prefix + new)[-20:]
        torch.testing.assert_close(logits[0], whole, rtol=0, atol=1e-5)
        assert seen.shape == (1, 90)
        assert bool(seen.all())

    @pytest.mark.parametrize("prefixed", [True, False])
    def test_ragged_rows_are_each_row_alone(self, tiny: LanguageModel, prefixed: bool) -> None:
        """Left padding, with or without a prefix before it: finite, and it changes nothing."""
        start = random_ids(self.PREFIX, 0) if prefixed else []
        prefix = made_prefix(tiny, start) if prefixed else tiny.empty_prefix()
        feeds = [random_ids(count, seed) for seed, count in enumerate(self.ROWS)]
        with torch.no_grad():
            logits, seen = tiny.forward(feeds, prefix.fork(len(feeds)), None, keep=max(self.ROWS))
        assert bool(logits.isfinite().all())
        for row, feed in enumerate(feeds):
            whole = whole_logits(tiny, start + feed)[-len(feed) :]
            torch.testing.assert_close(logits[row, -len(feed) :], whole, rtol=0, atol=1e-5)
            assert int(seen[row].sum()) == len(start) + len(feed)

    def test_padding_without_a_cache(self, tiny: LanguageModel) -> None:
        feeds = [random_ids(count, seed) for seed, count in enumerate(self.ROWS)]
        with torch.no_grad():
            logits, _ = tiny.forward(feeds, None, None, keep=1)
        for row, feed in enumerate(feeds):
            whole = whole_logits(tiny, feed)[-1]
            torch.testing.assert_close(logits[row, -1], whole, rtol=0, atol=1e-5)

    def test_rows_go_on_step_by_step(self, tiny: LanguageModel) -> None:
        """Three passes of uneven rows; one row is fed nothing in the second."""
        start = random_ids(self.PREFIX, 0)
        steps = [
            [random_ids(9, 1), random_ids(2, 2)],
            [random_ids(4, 3), []],
            [random_ids(1, 4), random_ids(3, 5)],
        ]
        cache, seen = made_prefix(tiny, start).fork(2), None
        told = [list(start), list(start)]
        with torch.no_grad():
            for feeds in steps:
                logits, seen = tiny.forward(feeds, cache, seen, keep=1)
                for row, feed in enumerate(feeds):
                    told[row] += feed
                    if feed:
                        whole = whole_logits(tiny, told[row])[-1]
                        torch.testing.assert_close(logits[row, -1], whole, rtol=0, atol=1e-5)
        assert seen is not None
        assert seen.sum(1).tolist() == [len(row) for row in told]

    def test_gradients_of_padding_are_finite(self, tiny: LanguageModel) -> None:
        weight = next(tiny.network.parameters()).requires_grad_()
        told, mask = tiny.answer_log_probs(None, [[1], [2, 3, 4]], [[5], [6, 7]])
        (told * mask).sum().backward()
        assert weight.grad is not None
        assert bool(weight.grad.isfinite().all())

    def test_bfloat16_cached_differs_no_more_than_batches_do(self, tiny: LanguageModel) -> None:
        """In bf16, rounding follows the shapes. Cached against whole is held to three times what
        the batch's shape alone does: a row among three of other lengths, against the row alone."""
        model = LanguageModel(tiny.network.to(torch.bfloat16), tiny.tokenizer, "tiny")
        cached_off = batched_off = 0.0
        with torch.no_grad():
            for trial in range(8):
                start = random_ids(60 + 13 * trial, trial)
                new = random_ids(20 + 5 * trial, 100 + trial)
                others = [random_ids(9, 200), random_ids(60, 201)]
                alone = whole_logits(model, start + new)[-1]
                cached, _ = model.forward([new], made_prefix(model, start).fork(), None, keep=1)
                feeds = [start + new, *(start + other for other in others)]
                batched, _ = model.forward(feeds, None, None, keep=1)
                cached_off = max(cached_off, float((cached[0, -1] - alone).abs().max()))
                batched_off = max(batched_off, float((batched[0, -1] - alone).abs().max()))
        resolution = 2**-8 * float(alone.abs().max())  # of one bfloat16 number of that size
        assert cached_off <= 3 * max(batched_off, resolution)


class TestAnswerLogProbs:
    ROWS = (([1, 2, 3], [4, 5]), ([6], [7, 8, 9, 10]), ([11, 12, 13, 14, 15], [16]))

    @pytest.mark.parametrize("cached", [True, False])
    def test_are_those_of_the_whole_sequence(self, tiny: LanguageModel, cached: bool) -> None:
        prefix = random_ids(40, 0) if cached else []
        contexts, answers = ([*map(list, column)] for column in zip(*self.ROWS, strict=True))
        begin = start([made_prefix(tiny, prefix)] * 3) if cached else None
        with torch.no_grad():
            told, mask = tiny.answer_log_probs(begin, contexts, answers)
        assert told.shape == mask.shape == (3, 4)
        assert told.dtype == torch.float32
        for row, (context, answer) in enumerate(self.ROWS):
            logits = whole_logits(tiny, [*prefix, *context, *answer])
            before = logits[-len(answer) - 1 : -1].log_softmax(-1)
            expected = before[torch.arange(len(answer)), answer]
            got = told[row][mask[row]]
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
            assert mask[row].tolist() == [False] * (4 - len(answer)) + [True] * len(answer)


class TestPrefix:
    def test_a_fork_never_changes_it(self, tiny: LanguageModel) -> None:
        prefix = made_prefix(tiny, random_ids(30, 0))
        before = [(layer.keys.clone(), layer.values.clone()) for layer in prefix.cache.layers]
        for rows in (1, 3):
            fork = prefix.fork(rows)
            with torch.no_grad():
                tiny.forward([random_ids(4 + row, row) for row in range(rows)], fork, None, keep=1)
            assert fork.get_seq_length() == 30 + 3 + rows
        assert prefix.cache.get_seq_length() == 30
        for layer, (keys, values) in zip(prefix.cache.layers, before, strict=True):
            assert torch.equal(layer.keys, keys)
            assert torch.equal(layer.values, values)

    def test_forks_do_not_see_each_other(self, tiny: LanguageModel) -> None:
        start = random_ids(30, 0)
        prefix = made_prefix(tiny, start)
        first, second = prefix.fork(), prefix.fork()
        with torch.no_grad():
            tiny.forward([random_ids(8, 1)], first, None, keep=1)
            logits, _ = tiny.forward([random_ids(8, 2)], second, None, keep=1)
        whole = whole_logits(tiny, start + random_ids(8, 2))[-1]
        torch.testing.assert_close(logits[0, -1], whole, rtol=0, atol=1e-5)

    def test_forks_share_the_prefix_in_memory(self, tiny: LanguageModel) -> None:
        prefix = made_prefix(tiny, random_ids(30, 0))
        for layer, forked in zip(prefix.cache.layers, prefix.fork(5).layers, strict=True):
            assert forked.keys.shape[0] == 5
            assert forked.keys.data_ptr() == layer.keys.data_ptr()


class TestLoad:
    def test_a_folder(self, tiny: LanguageModel, tmp_path: Path) -> None:
        tiny.network.save_pretrained(tmp_path)
        tiny.tokenizer.save_pretrained(tmp_path)
        loaded = LanguageModel.load(str(tmp_path), ModelConfig(device="cpu", dtype="float32"))
        ids = loaded.encode("Hello there")
        assert torch.equal(whole_logits(loaded, ids), whole_logits(tiny, ids))
        assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
        assert not any(module.training for module in loaded.network.modules())
        assert loaded.name == tmp_path.name
        assert (loaded.dtype, loaded.device.type) == (torch.float32, "cpu")

    def test_a_base_model_folder(self, tiny: LanguageModel, tmp_path: Path) -> None:
        tiny.network.save_pretrained(tmp_path)
        tiny.tokenizer.chat_template = None
        tiny.tokenizer.save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="base model"):
            LanguageModel.load(str(tmp_path), ModelConfig(device="cpu"))

    @pytest.mark.parametrize("broken", ["model.safetensors", "config.json", "tokenizer.json"])
    @pytest.mark.parametrize("content", [b"", b"\xff\x00 nonsense", b"{}"])
    def test_a_broken_folder(
        self, tiny: LanguageModel, tmp_path: Path, broken: str, content: bytes
    ) -> None:
        tiny.network.save_pretrained(tmp_path)
        tiny.tokenizer.save_pretrained(tmp_path)
        (tmp_path / broken).write_bytes(content)
        with pytest.raises(ModelError):
            LanguageModel.load(str(tmp_path), ModelConfig(device="cpu"))

    def test_a_folder_without_weights(self, tiny: LanguageModel, tmp_path: Path) -> None:
        tiny.network.config.save_pretrained(tmp_path)
        tiny.tokenizer.save_pretrained(tmp_path)
        with pytest.raises(ModelError):
            LanguageModel.load(str(tmp_path), ModelConfig(device="cpu"))

    def test_a_broken_gguf_file(self, tmp_path: Path) -> None:
        file = tmp_path / "cut.gguf"
        file.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x01" * 40)
        with pytest.raises(ModelError, match=r"cut\.gguf"):
            LanguageModel.load(str(file), ModelConfig(device="cpu", cache_dir=tmp_path / "cache"))
        kept = tmp_path / "cache" / "converted"
        assert not kept.exists() or not list(kept.iterdir()), "no half-made folder stays"

    def test_no_model_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="nothing"):
            LanguageModel.load(str(tmp_path / "nothing"))

    @pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
    def test_a_device_that_is_not_there(self, tmp_path: Path, device: str) -> None:
        with pytest.raises(ModelError, match=rf"model\.device='{device}'"):
            LanguageModel.load(str(tmp_path), ModelConfig(device=device))


class TestFingerprint:
    def test_one_model_one_fingerprint(self, tiny: LanguageModel) -> None:
        other = LanguageModel(copy.deepcopy(tiny.network), copy.deepcopy(tiny.tokenizer), "other")
        other.network.config._name_or_path = "/elsewhere"
        assert other.fingerprint == tiny.fingerprint

    @pytest.mark.parametrize("change", ["weight", "dtype", "order", "theta", "template", "token"])
    def test_tells_models_of_one_name_apart(self, tiny: LanguageModel, change: str) -> None:
        network, tokenizer = copy.deepcopy(tiny.network), copy.deepcopy(tiny.tokenizer)
        layers = network.model.layers
        if change == "weight":  # the least that training does
            layers[1].mlp.up_proj.weight.mul_(1.0001)
        elif change == "dtype":
            network.to(torch.bfloat16)
        elif change == "order":
            layers[0], layers[1] = layers[1], layers[0]
        elif change == "theta":
            network.config.max_position_embeddings += 1
        elif change == "template":
            tokenizer.chat_template += " "
        else:
            tokenizer.add_tokens(["<x>"])
        assert LanguageModel(network, tokenizer, tiny.name).fingerprint != tiny.fingerprint

    def test_of_odd_weights(self, tiny: LanguageModel) -> None:
        """Empty ones, single numbers, other types."""
        for number, odd in enumerate(
            (torch.empty(0), torch.tensor(1.0), torch.tensor([True]), torch.ones(3, 3).t()[::2])
        ):
            tiny.network.register_buffer(f"odd{number}", odd)
        assert LanguageModel(tiny.network, tiny.tokenizer, "tiny").fingerprint
