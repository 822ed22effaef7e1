"""Chat templates of the families: what they tell of a model; what they refuse, told otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from families import FAMILIES, network
from llguidance import LLMatcher

from quickstudy.chat import Chat
from quickstudy.config import Config
from quickstudy.decoding import Decoder
from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.toolcalls import CallFormat, grammar, read
from quickstudy.types import Message, Request

TOOLS = [
    {
        "name": "set_light",
        "parameters": {"type": "object", "properties": {"room": {"type": "string"}}},
    },
    {"name": "play", "parameters": {"type": "object", "properties": {"song": {"type": "string"}}}},
]


def called(*rooms: str, ids: bool = True) -> dict[str, Any]:
    calls = [
        {
            **({"id": f"call_{room}"} if ids else {}),
            "type": "function",
            "function": {"name": "set_light", "arguments": {"room": room}},
        }
        for room in rooms
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def result(room: str, ids: bool = True) -> dict[str, Any]:
    told = {"tool_call_id": f"call_{room}"} if ids else {}
    return {"role": "tool", "content": f"{room} is lit", **told}


CONVERSATION = [
    {"role": "system", "content": "Be terse."},
    {"role": "user", "content": "Light up"},
    called("attic", "hall"),
    result("hall"),
    result("attic"),
    {"role": "user", "content": "And the cellar"},
]


def model(family: str, architecture: str = "qwen2") -> LanguageModel:
    tokenizer = FAMILIES[family].tokenizer()
    return LanguageModel(network(architecture, tokenizer), tokenizer, family)


def prompt(family: str, conversation: list[dict[str, Any]], tools: Any = TOOLS) -> str:
    one = model(family)
    asked = Request.parse(conversation, tools)
    return one.decode(one.render(asked.messages, asked.tools))


class TestEveryFamily:
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("ids", [True, False])
    def test_calls_and_results_are_told(self, family: str, ids: bool) -> None:
        conversation = [
            *CONVERSATION[:2],
            called("attic", "hall", ids=ids),
            result("attic", ids),
            result("hall", ids),
            CONVERSATION[-1],
        ]
        told = prompt(family, conversation)
        places = [told.index(text) for text in ("set_light", '"room"', '"attic"', "attic is lit")]
        assert places == sorted(places)
        for text in ("Be terse.", "Light up", '"hall"', "hall is lit", "And the cellar"):
            assert text in told

    @pytest.mark.parametrize("family", FAMILIES)
    def test_practice_shares_the_prefix_of_the_request(self, family: str) -> None:
        one = model(family)
        context = one.prefill(Request.parse(CONVERSATION[:2], TOOLS))
        turn = one.turn(context, [Message("system", "Be terse."), Message("user", "Off!")], "json")
        assert turn is not None
        assert "Off!" in one.decode(turn)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_whole_cycle_runs(self, family: str) -> None:
        config = Config(
            decoding={"max_new_tokens": 40},  # type: ignore[arg-type]
            awareness={"threshold": 1.01},  # type: ignore[arg-type]
        )
        answer = Improver(model(family), config).answer(CONVERSATION, TOOLS)
        assert answer.episode.fallback is None or "failed:" not in answer.episode.fallback


class TestStyles:
    def test_mistral_gets_ids_of_nine_letters(self) -> None:
        told = prompt("mistral", CONVERSATION)
        assert '"arguments": {"room": "attic"}, "id": "call00000"}' in told
        assert '[TOOL_RESULTS] {"content": hall is lit, "call_id": "call00001"}' in told

    def test_ids_that_the_template_takes_are_kept(self) -> None:
        conversation = [dict(turn) for turn in CONVERSATION[1:3]]
        conversation[1] = called("attic")
        conversation[1]["tool_calls"][0]["id"] = "abcdefghi"
        conversation.append({**result("attic"), "tool_call_id": "abcdefghi"})
        told = prompt("mistral", conversation)
        assert '"id": "abcdefghi"' in told
        assert '"call_id": "abcdefghi"' in told

    def test_llama_gets_one_call_a_turn_each_before_its_result(self) -> None:
        told = prompt("llama", CONVERSATION)
        parts = ['"parameters": {"room": "hall"}', "hall is lit", '{"room": "attic"}',
                 "attic is lit"]  # fmt: skip
        places = [told.index(part) for part in parts]
        assert places == sorted(places)
        assert told.count("<|start_header_id|>ipython") == 2

    @pytest.mark.parametrize("family", ["gemma2", "gemma3"])
    def test_gemma_is_told_in_words_and_its_turns_alternate(self, family: str) -> None:
        told = prompt(family, CONVERSATION)
        assert '[{"name": "set_light", "arguments": {"room": "attic"}}, ' in told
        assert "Tool result: hall is lit\n\nTool result: attic is lit\n\nAnd the cellar" in told
        roles = [part.split("\n")[0] for part in told.split("<start_of_turn>")[1:]]
        assert roles == ["user", "model"] * (len(roles) // 2)

    def test_results_without_tools_are_told_in_words(self) -> None:
        told = prompt("gemma2", CONVERSATION, None)
        assert told.startswith("<bos><start_of_turn>user\nBe terse.\n\nLight up<end_of_turn>")
        assert "Tool result: hall is lit" in told
        assert "You are a helpful assistant that can call tools" not in told

    def test_tool_messages_have_the_name_of_their_tool(self) -> None:
        tokenizer = FAMILIES["qwen2"].tokenizer()
        tokenizer.chat_template = (
            "{%- for m in messages if m.role == 'tool' -%}<{{ m.name }}>{%- endfor -%}"
        )
        for ids in (True, False):
            conversation = [CONVERSATION[1], called("attic", ids=ids), result("attic", ids)]
            asked = Request.parse(conversation)
            assert Chat(tokenizer).render(asked.messages, (), "native") == "<set_light>"


class TestEndOfTurn:
    @pytest.mark.parametrize(
        ("family", "end"),
        [
            ("llama", "<|eot_id|>"),
            ("qwen2", "<|im_end|>"),
            ("qwen3", "<|im_end|>"),
            ("gemma3", "<end_of_turn>"),
            ("gemma2", "<end_of_turn>"),
            ("mistral", "</s>"),
        ],
    )
    def test_is_the_templates(self, family: str, end: str) -> None:
        one = model(family)
        assert one.decode(one.answer_ids("Yes")) == f"Yes{end}"
        assert one.single_tokens[end] in one.eos_ids
        assert one.tokenizer.eos_token_id in one.eos_ids

    def test_without_a_control_token_it_is_the_tokenizers(self) -> None:
        tokenizer = FAMILIES["gemma3"].tokenizer()
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
        one = LanguageModel(network("qwen2", tokenizer), tokenizer, "plain")
        assert one.answer_ids("Yes")[-1] == tokenizer.eos_token_id


class TestCallFormats:
    COMMON = ("tagged", "fenced", "json")

    @pytest.mark.parametrize(
        ("family", "own"),
        [
            ("qwen2", ()),
            ("qwen3", ()),
            ("gemma3", ()),
            ("llama", ("llama",)),
            ("mistral", ("mistral",)),
        ],
    )
    def test_of_the_family(self, family: str, own: tuple[CallFormat, ...]) -> None:
        assert model(family).call_formats == (*self.COMMON, *own)

    @pytest.mark.parametrize(
        ("template", "own"),
        [
            ("[func_name1(params_name1=params_value1), func_name2(params)]", ("python",)),
            ("<|python_start|>", ("python",)),
            ("{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", ("mistral-args",)),
            ('{\\"name\\": function name, \\"parameters\\": dictionary of argument name}',
             ("llama",)),
            ("plain words", ()),
        ],
    )  # fmt: skip
    def test_of_a_templates_words(self, template: str, own: tuple[CallFormat, ...]) -> None:
        tokenizer = FAMILIES["qwen2"].tokenizer()
        tokenizer.chat_template = template
        assert Chat(tokenizer).call_formats == (*self.COMMON, *own)


class TestThinking:
    def test_is_asked_for_only_if_wanted(self) -> None:
        one = model("qwen3")
        context = one.prefill(Request.parse("Hello"))
        assert one.decode(context.turn).endswith("assistant\n<think>\n\n</think>\n\n")
        context = one.prefill(Request.parse("Hello"), thinking=True)
        assert one.decode(context.turn).endswith("assistant\n")

    def test_the_answer_may_begin_with_it_only_where_it_can(self) -> None:
        assert model("qwen2").reasoning_start(True) == "none"
        assert model("qwen3").reasoning_start(False) == "none"
        assert model("qwen3").reasoning_start(True) == "optional"

    def opening(self) -> LanguageModel:
        one = model("qwen3")
        one.tokenizer.chat_template += "{%- if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
        return LanguageModel(one.network, one.tokenizer, "opens")

    def test_a_template_may_open_it(self) -> None:
        one = self.opening()
        assert one.reasoning_start(True) == one.reasoning_start(False) == "opened"
        assert one.decode(one.answer_ids("Yes", True)) == "\n</think>\n\nYes<|im_end|>"

    @pytest.mark.parametrize("opened", [True, False])
    def test_is_kept_in_the_record_and_out_of_the_words(self, opened: bool) -> None:
        one = self.opening() if opened else model("qwen3")
        config = Config(
            method="base",
            decoding={"max_new_tokens": 30, "thinking": True},  # type: ignore[arg-type]
        )
        improver = Improver(one, config)
        grammar_text = improver._grammar(Request.parse("Hi", TOOLS))
        assert grammar_text is not None
        assert not improver.decoder.refusal(grammar_text)
        answer = improver.answer("Hi", TOOLS)
        assert answer.reasoning == answer.episode.draft.reasoning
        told = answer.to_json()
        assert told.get("reasoning", "") == told["episode"]["draft"].get("reasoning", "")
        if opened:  # 30 random tokens do not close it by chance
            assert not read(answer.content, ())[0].reasoning

    @pytest.mark.parametrize("start", ["optional", "opened"])
    @pytest.mark.parametrize("tokens", [True, False])
    def test_grammar(self, start: Any, tokens: bool) -> None:
        one = model("qwen3")
        special = one.single_tokens if tokens else {}
        rules = grammar(Request.parse("x", TOOLS).tools, special, "json", reasoning_start=start)
        call = '[{"name": "play", "arguments": {"song": "x"}}]'
        begin = "<think>" if start == "optional" else ""

        def accepts(text: str) -> bool:
            pieces = [text] if tokens else list(text)  # letters alone make no control token
            ids = [i for piece in pieces for i in one.encode(piece)]
            matcher = LLMatcher(Decoder(one).vocabulary, rules.lark, log_level=0)
            assert not matcher.is_error(), matcher.get_error()
            return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

        assert accepts(f"{begin}\nI [think] {{so}}.\n</think>\n\n{call}")
        assert accepts(f"{begin}</think>{call}")
        assert accepts(f"{begin}no\n</think>\n\nplain words")
        assert accepts(call) == (start == "optional")
        assert not accepts(f"{begin}\nI think so.\n{call}")
        assert not accepts(f"{begin}no\n</think>\n\n[]")
