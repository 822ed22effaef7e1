"""From an unsure draft to verified practice. The decoder's answers are scripted; what they mean
for practice, the tiny model's rendering and its scores of tool names are real."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quickstudy.augmentation import call_first, memory
from quickstudy.augmentation.author import Author, OwnWriter
from quickstudy.augmentation.memory import Memory
from quickstudy.augmentation.substitution import analyse
from quickstudy.augmentation.synthesis import Synthesis, synthesise
from quickstudy.augmentation.verify import reject
from quickstudy.awareness.names import name_log_probs
from quickstudy.config import AugmentationConfig, Config, DecodingConfig, LearningConfig
from quickstudy.decoding import Ask, Deadline, Decoder, Draft, Generation
from quickstudy.errors import BudgetSpent, NoExamples
from quickstudy.model import Context, LanguageModel, Prefix
from quickstudy.toolcalls import Grammar, grammar, write
from quickstudy.types import Candidate, Example, Message, Rejected, Reply, Request, ToolCall


def tool(name: str, description: str, /, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "parameters": parameters}


TEXT = {"type": "string"}
DIM = tool("dim_lights", "Make a room darker", room=TEXT)
LIT = tool("lit_lights", "Make a room brighter", room=TEXT)
LOCK = tool("lock", "Lock or unlock a door", door=TEXT, shut={"type": "boolean"})


class Script:
    """Stands in for the decoder: each batch asked gets the next list of texts, or raises."""

    def __init__(self, model: LanguageModel, *batches: Sequence[str] | Exception) -> None:
        self.model = model
        self.batches = list(batches)
        self.asked: list[list[Ask]] = []

    def fixed_prefix(self, prompts: object) -> Prefix:
        return self.model.empty_prefix()

    def decode(self, prefix: object, asks: Sequence[Ask], **_: Any) -> list[Generation]:
        self.asked.append(list(asks))
        assert self.batches, f"asked for more: {[self.model.decode(a.turn) for a in asks]}"
        texts = self.batches.pop(0)
        if isinstance(texts, Exception):
            raise texts
        assert len(texts) == len(asks)
        return [Generation((), text, (), True) for text in texts]


def config(strategy: Any = "auto", examples: int = 2, attempts: int = 1) -> Config:
    augmentation = AugmentationConfig(
        strategy=strategy,
        examples=examples,
        attempts=attempts,
        no_tool=False,
    )
    return Config(augmentation=augmentation)


def context(model: LanguageModel, said: Any, *tools: dict[str, Any]) -> Context:
    return model.prefill(Request.parse(said, list(tools)))


def run(
    decoder: Any, asked: Context, *draft: ToolCall, settings: Config, into: Synthesis | None = None
) -> Synthesis:
    into = into or Synthesis()
    synthesise(decoder, drafted(asked, *draft), settings, None, Deadline(), into)
    return into


def drafted(asked: Context, *calls: ToolCall, rules: Grammar | None = None) -> Draft:
    return Draft(asked, Generation((), "", (), True), rules, Reply("", calls), "json", {})


def dim(room: str) -> ToolCall:
    return ToolCall("dim_lights", {"room": room})


def rooms(made: Synthesis) -> list[str]:
    return [e.tool_calls[0].arguments["room"] for e in made.examples]


class TestNothingToPractise:
    def test_a_draft_without_calls(self, tiny: LanguageModel) -> None:
        with pytest.raises(NoExamples, match="calls no tool"):
            run(Script(tiny), context(tiny, "Hi", DIM), settings=config())

    def test_a_draft_that_calls_what_is_not_listed(self, tiny: LanguageModel) -> None:
        with pytest.raises(NoExamples, match="not listed"):
            run(Script(tiny), context(tiny, "Hi", DIM), ToolCall("fly", {}), settings=config())

    def test_no_example_survives(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Dim it in here", DIM)
        script = Script(tiny, ['{"room": "attic"}'] * 2, ["I'm sorry", "Dim the cellar"])
        into = Synthesis()
        with pytest.raises(NoExamples, match="survived"):
            run(script, asked, dim("kitchen"), settings=config(), into=into)
        assert [r.reason for r in into.rejected] == [
            "it is a refusal",
            "its request does not state room = 'attic'",
        ]


class TestSubstitution:
    def test_is_all_that_is_done_where_it_gives_examples(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Dim the kitchen", DIM, LIT)
        script = Script(tiny, ["attic; cellar; hall;"])
        made = run(script, asked, dim("kitchen"), settings=config())
        assert [e.user_text for e in made.examples] == ["Dim the attic", "Dim the cellar"]
        assert rooms(made) == ["attic", "cellar"]
        assert len(script.asked) == 1

    def test_alone_it_is_no_reason_to_write_anything(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Dim it in here", DIM)
        with pytest.raises(NoExamples):
            run(Script(tiny), asked, dim("kitchen"), settings=config("substitution"))


WRITTEN = (
    ['{"room": "attic"}', '{"room": "cellar"}'],
    ["Make the attic darker", "Less light in the cellar please"],
)


class TestCallFirst:
    def test_is_tried_where_substitution_finds_nothing(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Dim it in here", DIM)
        made = run(Script(tiny, *WRITTEN), asked, dim("kitchen"), settings=config())
        assert [(e.user_text, e.source) for e in made.examples] == [
            ("Make the attic darker", "call-first"),
            ("Less light in the cellar please", "call-first"),
        ]
        assert rooms(made) == ["attic", "cellar"]

    def test_is_tried_first_if_so_configured(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Dim the kitchen", DIM)
        made = run(Script(tiny, *WRITTEN), asked, dim("kitchen"), settings=config("call-first"))
        assert rooms(made) == ["attic", "cellar"]

    def test_no_more_than_wanted_are_kept(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Dim it in here", DIM)
        made = run(Script(tiny, *WRITTEN), asked, dim("x"), settings=config(examples=1, attempts=2))
        assert rooms(made) == ["attic"]
        assert made.rejected == []

    def test_the_users_own_value_is_rejected(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Dim the cellar", DIM)
        made = run(Script(tiny, *WRITTEN), asked, dim("cellar"), settings=config("call-first"))
        assert rooms(made) == ["attic"]
        assert "own value" in made.rejected[0].reason

    def test_as_many_calls_as_the_draft_and_the_system_message(self, tiny: LanguageModel) -> None:
        said = [
            {"role": "system", "content": "You keep house."},
            {"role": "user", "content": "Dim both"},
        ]
        asked = context(tiny, said, DIM)
        made = run(Script(tiny, *WRITTEN), asked, dim("x"), dim("y"), settings=config(examples=1))
        (example,) = made.examples
        assert example.messages == (
            Message("system", "You keep house."),
            Message("user", "Make the attic darker Less light in the cellar please"),
        )
        assert example.tool_calls == (dim("attic"), dim("cellar"))

    def test_what_was_made_before_the_budget_ran_out_stays(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Close it", LOCK)
        fill = ['{"door": "gate", "shut": true}', '{"door": "porch", "shut": true}']
        told = ["I am sorry", "Close the porch"]
        into = Synthesis()
        script = Script(tiny, fill, told, BudgetSpent("the time budget is spent"))
        draft = ToolCall("lock", {"door": "x", "shut": True})
        with pytest.raises(BudgetSpent):
            run(script, asked, draft, settings=config(), into=into)
        assert [r.reason for r in into.rejected] == ["it is a refusal"]

    def test_whatever_a_random_model_writes(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Close the gate", LOCK)
        into = Synthesis()
        rules = grammar(asked.request.tools, tiny.single_tokens, None)
        draft = drafted(asked, ToolCall("lock", {"door": "gate", "shut": True}), rules=rules)
        try:
            synthesise(Decoder(tiny), draft, config("call-first"), None, Deadline(), into)
        except NoExamples:
            assert into.examples == []
        assert len(into.examples) + len(into.rejected) == 2


class TestRoundTrip:
    """No word of a request shows a boolean: the model, asked anew, must make the same call."""

    FILL = (
        ['{"door": "gate", "shut": true}', '{"door": "porch", "shut": false}'],
        ["Close the gate", "Let the cat in by the porch"],
    )
    DRAFT = ToolCall("lock", {"door": "garage", "shut": True})

    def answers(self, *shut: bool) -> list[str]:
        doors = ("gate", "porch")
        calls = [ToolCall("lock", {"door": d, "shut": s}) for d, s in zip(doors, shut, strict=True)]
        return [write([call], "json", ()) for call in calls]

    def test_the_same_call_is_kept_and_another_rejected(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Close it", LOCK)
        script = Script(tiny, *self.FILL, self.answers(True, True))
        made = run(script, asked, self.DRAFT, settings=config())
        assert [e.tool_calls[0].arguments["door"] for e in made.examples] == ["gate"]
        (rejected,) = made.rejected
        assert rejected.example.tool_calls[0].arguments["door"] == "porch"
        assert "another call" in rejected.reason

    def test_the_model_is_asked_the_new_request(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Close it", LOCK)
        script = Script(tiny, *self.FILL, self.answers(True, False))
        made = run(script, asked, self.DRAFT, settings=config())
        assert len(made.examples) == 2
        turns = [tiny.decode(ask.turn) for ask in script.asked[-1]]
        assert ["Close the gate" in turns[0], "by the porch" in turns[1]] == [True, True]
        assert not any("Close it" in turn for turn in turns)

    def test_words_are_no_reason_for_one(self, tiny: LanguageModel) -> None:
        script = Script(tiny, *WRITTEN)
        made = run(script, context(tiny, "Dim it", DIM), dim("x"), settings=config())
        assert len(made.examples) == len(script.asked) == 2

    def test_only_booleans_and_the_like_are_exempt(self) -> None:
        request = Request.parse("Close it", [LOCK])
        example = Example(
            (Message("user", "Close the gate"),),
            (ToolCall("lock", {"door": "gate", "shut": True}), ToolCall("lock", {"door": "attic"})),
            "call-first",
        )
        exempt = call_first.ungroundable(example, request)
        assert [set(names) for names in exempt] == [{"shut"}, set()]


class TestRivals:
    def test_needs_real_mass(self) -> None:
        names = [Candidate("own", -1.0), Candidate("rival", -1.0), Candidate("other", -1.0)]
        assert call_first.rival_of(names, [0.5, 0.3, 0.2], "own") == "rival"
        assert call_first.rival_of(names, [0.81, 0.1, 0.09], "own") is None
        assert call_first.rival_of(names, [0.1, 0.9, 0.0], "rival") is None
        assert call_first.rival_of(names[:1], [1.0], "own") is None

    @staticmethod
    def preferred(model: LanguageModel, asked: Context, text: str) -> tuple[str, str]:
        """The tools' names, the one the model itself prefers for this request first."""
        turn = model.turn(asked, [Message("user", text)], "json")
        assert turn is not None
        names = [t.name for t in asked.request.tools]
        scores = name_log_probs(Decoder(model), asked, turn, names, "json")
        best = names[scores.index(max(scores))]
        return best, next(name for name in names if name != best)

    FILL = (['{"room": "porch"}'], ["The porch, a little"])

    def rival(self, model: LanguageModel, first: bool) -> Example | Rejected | None:
        asked = context(model, "Dim it in here", DIM, LIT)
        names = self.preferred(model, asked, self.FILL[1][0])
        script: Any = Script(model, *self.FILL)
        author = Author(OwnWriter(script, 0.8, 0, Deadline()))
        rival = asked.request.tool(names[0 if first else 1])
        assert rival is not None
        return call_first.rival_example(author, script, asked, rival, (), "json")

    def test_is_kept_if_the_model_prefers_it_for_its_request(self, tiny: LanguageModel) -> None:
        made = self.rival(tiny, first=True)
        assert isinstance(made, Example)
        assert made.tool_calls[0].arguments == {"room": "porch"}

    def test_is_rejected_if_the_model_itself_prefers_the_other(self, tiny: LanguageModel) -> None:
        made = self.rival(tiny, first=False)
        assert isinstance(made, Rejected)
        assert "prefers" in made.reason

    @staticmethod
    def own_and_rival(model: LanguageModel, said: str) -> tuple[Context, ToolCall, str]:
        """A draft of the tool the model thinks less of, so that the other has real mass."""
        asked = context(model, said, DIM, LIT)
        names = [t.name for t in asked.request.tools]
        scores = name_log_probs(Decoder(model), asked, list(asked.turn), names, "json")
        own, rival = names if scores[0] < scores[1] else names[::-1]
        return asked, ToolCall(own, {"room": "x"}), rival

    def test_stands_beside_an_example_of_the_drafts_tool(self, tiny: LanguageModel) -> None:
        asked, draft, rival = self.own_and_rival(tiny, "Dim it in here")
        made = run(Script(tiny, *WRITTEN, *self.FILL), asked, draft, settings=config())
        assert rooms(made)[:2] == ["attic", "cellar"]
        rest = [e.tool_calls[0].name for e in made.examples[2:]]
        rest += [r.example.tool_calls[0].name for r in made.rejected]
        assert rest == [rival]

    def test_is_not_written_where_no_own_example_survived(self, tiny: LanguageModel) -> None:
        asked, draft, _ = self.own_and_rival(tiny, "Dim it in here")
        script = Script(tiny, WRITTEN[0], ["I'm sorry", "I'm sorry"])
        with pytest.raises(NoExamples):
            run(script, asked, draft, settings=config())
        assert len(script.asked) == 2

    def test_is_not_written_for_a_draft_of_several_calls(self, tiny: LanguageModel) -> None:
        asked, draft, _ = self.own_and_rival(tiny, "Dim both")
        made = run(Script(tiny, *WRITTEN), asked, draft, draft, settings=config(examples=1))
        assert len(made.examples) == 1

    def test_is_verified_like_any_example(self, tiny: LanguageModel) -> None:
        asked = context(tiny, "Dim it in here", DIM, LIT)
        script: Any = Script(tiny, ['{"room": "porch"}'], ["Make it a little better"])
        author = Author(OwnWriter(script, 0.8, 0, Deadline()))
        made = call_first.rival_example(author, script, asked, asked.request.tools[1], (), "json")
        assert isinstance(made, Rejected)
        assert "does not state" in made.reason


def test_kept_examples_pass_the_verifier_again(tiny: LanguageModel) -> None:
    asked = context(tiny, "Dim the kitchen", DIM)
    made = run(Script(tiny, ["attic; cellar; hall;"]), asked, dim("kitchen"), settings=config())
    kept = analyse(asked.request, [dim("kitchen")]).kept
    for number, example in enumerate(made.examples):
        assert reject(example, asked.request, made.examples[:number], kept) is None


class TestMemory:
    """What was written and verified before is not written again."""

    SAID = "Dim the kitchen"

    @staticmethod
    def remembering(folder: Path, **augmentation: Any) -> Config:
        return Config(augmentation=AugmentationConfig(memory=folder, no_tool=False, **augmentation))

    def test_the_second_time_nobody_is_asked(self, tiny: LanguageModel, tmp_path: Path) -> None:
        settings = self.remembering(tmp_path)
        script = Script(tiny, ["attic; cellar; hall;"])
        first = run(script, context(tiny, self.SAID, DIM), dim("kitchen"), settings=settings)
        assert first.notes == []
        again = run(Script(tiny), context(tiny, self.SAID, DIM), dim("kitchen"), settings=settings)
        assert again.examples == first.examples
        assert len(again.examples) == 2
        assert again.notes == ["practice remembered"]

    def test_what_does_not_change_practice_does_not_matter(
        self, tiny: LanguageModel, tmp_path: Path
    ) -> None:
        script = Script(tiny, ["attic; cellar; hall;"])
        asked = context(tiny, self.SAID, DIM)
        run(script, asked, dim("kitchen"), settings=self.remembering(tmp_path))
        remembering = self.remembering(tmp_path, informative_loss=1, memory_megabytes=9)
        for settings in (
            remembering,
            remembering.model_copy(update={"method": "tt-icl", "repair": True}),
            remembering.model_copy(update={"learning": LearningConfig(rank=2)}),
        ):
            again = run(Script(tiny), asked, dim("kitchen"), settings=settings)
            assert again.notes == ["practice remembered"]

    def test_anything_else_misses(self, tiny: LanguageModel, tmp_path: Path) -> None:
        settings = self.remembering(tmp_path)
        asked = context(tiny, self.SAID, DIM)
        network = copy.deepcopy(tiny.network)
        network.model.layers[0].mlp.up_proj.weight.mul_(1.001)
        other = LanguageModel(network, tiny.tokenizer, tiny.name)
        drafts = [
            (tiny, drafted(asked, dim("kitchen")), settings),
            (tiny, drafted(context(tiny, "Dim the kitchen!", DIM), dim("kitchen")), settings),
            (tiny, drafted(context(tiny, self.SAID, DIM, LIT), dim("kitchen")), settings),
            (tiny, drafted(asked, dim("kitchen"), dim("kitchen")), settings),
            (tiny, replace(drafted(asked, dim("kitchen")), call_format="tagged"), settings),
            (other, drafted(context(other, self.SAID, DIM), dim("kitchen")), settings),
            (tiny, drafted(asked, dim("kitchen")), self.remembering(tmp_path, examples=3)),
            (tiny, drafted(asked, dim("kitchen")), self.remembering(tmp_path, temperature=1)),
            (tiny, drafted(asked, dim("kitchen")), settings.model_copy(update={"seed": 1})),
            (
                tiny,
                drafted(asked, dim("kitchen")),
                settings.model_copy(update={"decoding": DecodingConfig(max_new_tokens=9)}),
            ),
        ]
        for model, draft, config in drafts:
            script: Any = Script(model, ["attic; cellar; hall; gate; shed; loft;"])
            synthesise(script, draft, config, None, Deadline(), into := Synthesis())
            assert into.notes == []
            assert len(script.asked) == 1
            synthesise(script, draft, config, None, Deadline(), into := Synthesis())
            assert into.notes == ["practice remembered"]

    @pytest.mark.parametrize("calls", [(ToolCall("fly", {}),), (ToolCall("dim_lights", {"x": 1}),)])
    def test_a_corrupted_entry_is_a_miss(
        self, tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Any
    ) -> None:
        """Readable but wrong: practice that could not have been verified."""
        settings, asked = self.remembering(tmp_path), context(tiny, self.SAID, DIM)
        real = Memory.keep

        def keep(self: Memory, key: str, examples: Sequence[Example]) -> None:
            real(self, key, [*examples[:-1], replace(examples[-1], tool_calls=calls)])

        script = Script(tiny, *[["attic; cellar; hall;"]] * 2)
        with monkeypatch.context() as patches:
            patches.setattr(Memory, "keep", keep)
            first = run(script, asked, dim("kitchen"), settings=settings)
        again = run(script, asked, dim("kitchen"), settings=settings)
        assert again.notes == []
        assert again.examples == first.examples
        assert run(script, asked, dim("kitchen"), settings=settings).notes == [
            "practice remembered"
        ]

    def test_nothing_is_kept_of_what_failed(self, tiny: LanguageModel, tmp_path: Path) -> None:
        asked, settings = context(tiny, "Dim it in here", DIM), self.remembering(tmp_path)
        script = Script(tiny, WRITTEN[0] * 2, ["I'm sorry"] * 4)
        with pytest.raises(NoExamples):
            run(script, asked, dim("kitchen"), settings=settings)
        script = Script(tiny, WRITTEN[0] * 2, ["I'm sorry"] * 4)
        with pytest.raises(NoExamples):
            run(script, asked, dim("kitchen"), settings=settings)
        assert len(script.asked) == 2, "it was tried again"

    def test_a_folder_that_cannot_be_used_costs_nothing_but_the_memory(
        self, tiny: LanguageModel, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        settings = self.remembering(tmp_path / "file")
        script = Script(tiny, ["attic; cellar; hall;"])
        made = run(script, context(tiny, self.SAID, DIM), dim("kitchen"), settings=settings)
        assert rooms(made) == ["attic", "cellar"]
        (note,) = made.notes
        assert str(tmp_path / "file") in note

    def test_is_off_by_default(
        self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fail(*_: object) -> None:
            pytest.fail("a memory was opened")

        monkeypatch.setattr(memory, "opened", fail)
        asked = context(tiny, self.SAID, DIM)
        for given in ({}, {"memory": None}):
            settings = Config(augmentation={"no_tool": False, **given})
            made = run(Script(tiny, ["attic; hall;"]), asked, dim("kitchen"), settings=settings)
            assert made.notes == []
        assert Config(method="tt-si-paper").augmentation.memory is None

    def test_a_teacher_has_a_memory_of_its_own(self, tiny: LanguageModel, tmp_path: Path) -> None:
        settings, asked = self.remembering(tmp_path), context(tiny, self.SAID, DIM)
        draft = drafted(asked, dim("kitchen"))
        script: Any = Script(tiny, ["attic; cellar; hall;"])
        synthesise(script, draft, settings, None, Deadline(), Synthesis())
        for name in ("t1", "t2"):
            teacher = Taught(name)
            synthesise(script, draft, settings, teacher, Deadline(), into := Synthesis())
            assert rooms(into) == ["gate", "shed"]
            synthesise(script, draft, settings, teacher, Deadline(), into := Synthesis())
            assert rooms(into) == ["gate", "shed"]
            assert into.notes == ["practice remembered"]
            assert teacher.asked == 1
        synthesise(script, draft, settings, None, Deadline(), into := Synthesis())
        assert rooms(into) == ["attic", "cellar"]
        assert into.notes == ["practice remembered"]


class Taught:
    """A teacher who knows one answer and a few rooms."""

    def __init__(self, name: str) -> None:
        self.name, self.asked = name, 0

    def for_request(self, seed: int, deadline: Deadline) -> Taught:
        return self

    def answer(self, _: Request) -> Reply:
        self.asked += 1
        return Reply("", (dim("kitchen"),))

    def write(self, dialogues: Sequence[Any], *_: object, **__: object) -> list[str]:
        return ["gate; shed; loft;"] * len(dialogues)
