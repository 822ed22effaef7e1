"""Every method on a tiny model that calls: what it practises, on which drafts, what remains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from taught import LIGHT, QUICK, ROWS, TRAINING, row, taught

from quickstudy import toolcalls
from quickstudy.augmentation.synthesis import Synthesis
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Decoder, Draft, Generation
from quickstudy.errors import ConfigError
from quickstudy.evals.task import parse as read_row
from quickstudy.improve import Given
from quickstudy.learning.lora import AdapterBank
from quickstudy.learning.practice import Lesson, practised
from quickstudy.methods import RECIPES, Item, Outcome, Workbench, parse
from quickstudy.methods.book import PracticeBook
from quickstudy.methods.cycle import NoReset
from quickstudy.methods.reconsidering import Reconsider
from quickstudy.methods.supervised import Supervised
from quickstudy.methods.voting import Majority
from quickstudy.model import LanguageModel, PrefixCache
from quickstudy.teaching.teacher import LocalTeacher
from quickstudy.types import Example, Rejected, ToolCall


class Book(PracticeBook):
    """Has one practice for everything."""

    def __init__(self, given: Given) -> None:
        super().__init__()
        self.given = given

    def practice(self, *_: Any) -> Any:
        return self.given, None


def items(rows: Sequence[Any]) -> list[Item]:
    tasks = [read_row(row, number) for number, row in enumerate(rows)]
    return [Item(task.request, task.gold) for task in tasks]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return taught()


@pytest.fixture
def bench(model: LanguageModel, tmp_path: Path) -> Workbench:
    book = PracticeBook(tmp_path / "practice.jsonl")
    training = items(TRAINING)
    return Workbench(
        model, Decoder(model), book, items(ROWS), lambda: training, tmp_path / "adapters", samples=3
    )


def config(name: str, *overrides: str) -> Config:
    return parse(name).config(None, [*QUICK, *overrides], 0)


def answered(bench: Workbench, name: str, *overrides: str, number: int = 3) -> Outcome:
    method = parse(name).recipe.make(bench, config(name, *overrides))
    return method.answer(bench.items[number])


class TestNames:
    def test_repair_is_a_switch_on_every_method(self) -> None:
        for name in RECIPES:
            if name != "repair":
                told = parse(f"{name}+repair")
                assert told.repaired
                assert told.parent == name

    def test_repair_is_base_repaired(self) -> None:
        assert parse("base+repair") == parse("repair")
        assert (parse("repair").parent, parse("repair").repaired) == ("base", True)
        assert not parse("base").repaired

    @pytest.mark.parametrize(
        ("name", "told"),
        [("tt-s1", "did you mean tt-si?"), ("repair+repair", "type repair"), ("", "methods:")],
    )
    def test_what_is_no_method_is_told(self, name: str, told: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse(name)
        assert told in str(caught.value)

    def test_settings_that_make_a_method_go_over_the_users(self) -> None:
        assert (
            config("base-unconstrained", "decoding.constrained=true").decoding.constrained is False
        )
        assert config("adapt-all", "awareness.threshold=0.1").awareness.threshold == 1.01
        assert config("icl", "awareness.reconsider=true").awareness.reconsider is False
        assert config("sft", "learning.batch_size=2").learning.batch_size == 2
        assert config("tt-si-paper").learning.epochs == 1  # QUICK's, over the preset's
        assert config("tt-si-paper").augmentation.strategy == "question-answer"

    def test_the_runs_seed_gives_way_to_one_that_is_set(self) -> None:
        assert parse("tt-si").config(None, [], 3).seed == 3
        assert parse("tt-si").config(None, ["seed=4"], 3).seed == 4


@pytest.mark.parametrize("name", RECIPES)
def test_every_method_answers_and_leaves_the_model_as_it_was(bench: Workbench, name: str) -> None:
    network, decoder = bench.model.network, bench.decoder
    bench.teacher = LocalTeacher(decoder, config("tt-d").decoding, temperature=1.0, seed=0)
    prompt = torch.tensor([bench.model.encode("Light to 52")])
    before = network(prompt).logits
    told = answered(bench, name)
    assert told.answer.tool_calls or name == "base-unconstrained"
    assert sum(told.answer.episode.seconds.values()) > 0
    assert torch.equal(network(prompt).logits, before)


class TestWhatIsPractised:
    def examples(self, bench: Workbench, name: str, *overrides: str) -> list[str]:
        told = answered(bench, name, *overrides)
        assert told.answer.episode.fallback is None
        return [example.user_text for example in told.answer.episode.examples]

    def test_methods_share_practice_and_it_is_made_once(self, bench: Workbench) -> None:
        own = answered(bench, "tt-si")
        made = (bench.book.path or Path()).read_text()
        told = answered(bench, "tt-icl")
        assert told.answer.episode.examples == own.answer.episode.examples
        spent = [outcome.answer.episode.seconds["synthesis"] for outcome in (own, told)]
        assert spent[0] == spent[1] > 0
        assert (bench.book.path or Path()).read_text() == made
        assert own.examples_trained == len(own.answer.episode.examples) > 0
        assert own.gradient_steps == 1
        assert (told.examples_trained, told.gradient_steps) == (0, 0)

    def test_practice_is_read_again_from_the_disk(self, bench: Workbench) -> None:
        own = answered(bench, "tt-si").answer.episode
        bench.book = PracticeBook(bench.book.path)
        again = answered(bench, "tt-si").answer.episode
        assert again.examples == own.examples
        assert again.rejected == own.rejected
        assert again.seconds["synthesis"] == own.seconds["synthesis"]

    def test_other_settings_make_other_practice(self, bench: Workbench) -> None:
        two = self.examples(bench, "tt-si")
        three = self.examples(bench, "tt-si", "augmentation.examples=3")
        assert len(three) == 3 > len(two)

    def test_other_request_practises_for_the_one_before(self, bench: Workbench) -> None:
        before = [e.user_text for e in answered(bench, "tt-si", number=2).answer.episode.examples]
        assert self.examples(bench, "other-request") == before
        assert self.examples(bench, "tt-si") != before

    def test_other_request_is_never_the_same_question(self, bench: Workbench) -> None:
        told = answered(bench, "other-request", number=1)  # asks what the row before it asks
        own = [e.user_text for e in answered(bench, "tt-si", number=2).answer.episode.examples]
        assert [e.user_text for e in told.answer.episode.examples] == own

    def test_other_request_practises_under_its_own_tools(self, bench: Workbench) -> None:
        fan = {**row("Fan to 40"), "tools": [{**LIGHT, "name": "set_fan"}]}
        fan["answers"] = [{"name": "set_fan", "arguments": {"level": 40}}]
        bench.items = items([fan, row("Light to 40")])
        told = answered(bench, "other-request", number=1).answer
        assert told.episode.practised
        assert {call.name for e in told.episode.examples for call in e.tool_calls} == {"set_fan"}
        assert [call.name for call in told.tool_calls] == ["set_light"]
        assert told.episode.losses == answered(bench, "tt-si", number=0).answer.episode.losses

    def test_no_synthesis_practises_the_request_itself(self, bench: Workbench) -> None:
        told = answered(bench, "no-synthesis").answer.episode
        (example,) = told.examples
        assert example.user_text == bench.items[3].request.user_text
        assert example.tool_calls == told.draft.tool_calls

    def test_no_verification_practises_what_was_refused(self, bench: Workbench) -> None:
        kept, refused = self.made(bench)
        bench.book = Book(Given(Synthesis([kept], [Rejected(refused, "why")])))
        both = [example.user_text for example in (kept, refused)]
        assert sorted(self.examples(bench, "no-verification")) == sorted(both)
        bench.book = Book(Given(Synthesis([], [Rejected(refused, "why")]), 0.0, "none"))
        assert self.examples(bench, "no-verification") == [refused.user_text]
        assert not answered(bench, "tt-si").answer.episode.practised

    def test_no_verification_has_a_form_all_the_same(self, bench: Workbench) -> None:
        """A call of a tool that is not listed, and no call at all, cannot be practised."""
        kept, _ = self.made(bench)
        bad = [replace(kept, tool_calls=calls) for calls in ((), (ToolCall("f", {}),))]
        given = Given(Synthesis([], [Rejected(e, "why") for e in bad]), 0.0, "none")
        bench.book = Book(given)
        told = answered(bench, "no-verification").answer.episode
        assert (told.fallback, told.practised) == ("none", False)

    def made(self, bench: Workbench) -> tuple[Example, Example]:
        first, second = answered(bench, "tt-si").answer.episode.examples
        return first, second

    def test_icl_tells_the_nearest_rows_the_nearest_last(self, bench: Workbench) -> None:
        told = self.examples(bench, "icl", "augmentation.examples=3")
        assert sorted(told) == ["Disco to 93", "Sign to 82", "Spot to 71"]
        bench.items = items([row("A sign to 40, please")])
        near = answered(bench, "icl", "augmentation.examples=2", number=0).answer.episode.examples
        assert near[-1].user_text == "Sign to 82"

    def test_icl_never_tells_the_request_itself(self, bench: Workbench) -> None:
        bench.items = items(TRAINING)
        told = answered(bench, "icl", "augmentation.examples=3", number=0).answer.episode
        assert "Spot to 71" not in [example.user_text for example in told.examples]


def test_a_prefix_that_is_there_already_costs_as_if_it_were_not(bench: Workbench) -> None:
    base = answered(bench, "base").answer.episode.seconds
    plain = answered(bench, "base-unconstrained").answer.episode.seconds
    assert plain["prefill"] == base["prefill"]
    assert plain["draft"] != base["draft"]


class TestGates:
    def test_certain_only_practises_where_tt_si_does_not(self, bench: Workbench) -> None:
        for threshold in ("1.01", "0"):
            gate = f"awareness.threshold={threshold}"
            own, turned = answered(bench, "tt-si", gate), answered(bench, "certain-only", gate)
            assert own.answer.episode.practised is own.triggered is (threshold == "1.01")
            assert turned.answer.episode.practised is turned.triggered is not own.triggered
            assert turned.threshold == own.threshold == float(threshold)
            assert turned.answer.episode.certainty == own.answer.episode.certainty

    def test_adapt_all_has_no_gate(self, bench: Workbench) -> None:
        assert answered(bench, "adapt-all", "awareness.threshold=0").answer.episode.practised

    def test_base_asks_no_gate(self, bench: Workbench) -> None:
        told = answered(bench, "base")
        assert (told.triggered, told.threshold) == (False, None)


class TestMajority:
    def test_one_seed_the_same_votes(self, bench: Workbench) -> None:
        first, again = answered(bench, "majority"), answered(bench, "majority")
        assert [s.text for s in first.samples] == [s.text for s in again.samples]
        assert len(first.samples) == 3
        assert first.answer.tool_calls == again.answer.tool_calls

    def test_the_most_votes_win(self, bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
        """At a low temperature every sample is what the model likes best: then it wins."""
        bench.samples = 5
        told = answered(bench, "majority", "awareness.temperature=0.01")
        draft = answered(bench, "base").answer.tool_calls
        assert told.answer.tool_calls == draft
        (candidate,) = told.answer.episode.candidates
        assert candidate.log_prob == 0

    @pytest.mark.parametrize(("others", "level"), [(3, 52), (1, 40)])
    def test_a_tie_is_the_drafts(self, bench: Workbench, others: int, level: int) -> None:
        class Polled(Majority):
            def draw(self, draft: Draft, count: int) -> list[Generation]:
                said = draft.generation
                other = replace(said, text=said.text.replace("40", "52"))
                cut_off = replace(other, finished=False)  # has no vote
                return [other] * others + [cut_off] * 5

        told = Polled(bench, config("majority")).answer(bench.items[0])
        assert told.answer.tool_calls == (ToolCall("set_light", {"level": level}),)

    def test_a_sure_draft_is_not_voted_on(self, bench: Workbench) -> None:
        told = answered(bench, "majority", "awareness.threshold=0")
        assert (told.samples, told.triggered) == ((), False)

    def test_more_seconds_buy_more_samples(self, bench: Workbench) -> None:
        method = Majority(bench, config("majority"))
        few, many = (method.affordable(bench.items[0], ratio) for ratio in (0.0, 1e9))
        assert 1 <= few < many == 64


class TestReconsider:
    def test_answers_with_the_reconsidered_call(self, bench: Workbench) -> None:
        method = Reconsider(bench, config("reconsider"))
        draft, _ = bench.draft(method.improver, bench.items[0].request)
        (own,) = draft.reply.tool_calls
        unlisted = replace(draft, reply=replace(draft.reply, tool_calls=(ToolCall("lamp", {}),)))
        told = method.second(unlisted).reply.tool_calls
        assert [call.name for call in told] == [own.name]
        assert toolcalls.problem(told[0], draft.context.request.tools) is None

    def test_is_gated_and_tells_what_the_gate_weighed(self, bench: Workbench) -> None:
        told, sure = (answered(bench, "reconsider", f"awareness.threshold={t}") for t in (1.01, 0))
        assert (told.triggered, sure.triggered) == (True, False)
        assert told.answer.episode.candidates == sure.answer.episode.candidates != ()
        assert "answer" in told.answer.episode.seconds
        assert not told.answer.episode.practised


class TestSupervised:
    def test_an_adapter_is_trained_once_and_kept(self, bench: Workbench) -> None:
        settings = config("sft", "learning.epochs=2")  # the first step of a warm-up has the rate 0
        first = parse("sft").recipe.make(bench, settings)
        assert isinstance(first, Supervised)
        assert (first.training.examples, first.training.gradient_steps) == (3, 2)
        (folder,) = bench.folder.iterdir()
        kept = (folder / "adapter_model.safetensors").stat().st_mtime_ns
        again = parse("sft").recipe.make(bench, settings)
        assert isinstance(again, Supervised)
        assert again.training == first.training
        assert (folder / "adapter_model.safetensors").stat().st_mtime_ns == kept
        for name, b in first.adapter.b.items():
            assert torch.equal(again.adapter.b[name], b)
            assert b.abs().sum() > 0

    def test_other_rows_train_another(self, bench: Workbench) -> None:
        for name in ("sft", "sft-single", "oracle"):
            parse(name).recipe.make(bench, config(name))
        single = parse("sft-single").recipe.make(bench, config("sft-single"))
        assert isinstance(single, Supervised)
        assert single.training.examples == 2
        assert len(list(bench.folder.iterdir())) == 3

    @pytest.mark.parametrize("mode", ["activated", "full"])
    def test_it_learns_what_it_is_shown(self, bench: Workbench, mode: str) -> None:
        bench.items = bench.items[3:4]
        learning = ("learning.epochs=60", "learning.learning_rate=3e-3", f"learning.mode={mode}")
        told = answered(bench, "oracle", *learning, number=0)
        assert told.answer.tool_calls == bench.items[0].gold
        assert answered(bench, "base", number=0).answer.tool_calls != bench.items[0].gold

    def test_its_steps_are_those_of_practice(self, bench: Workbench) -> None:
        """On one row alone, practice that drops nothing and stops nowhere is the reference."""
        bench.items = bench.items[3:4]
        plain = ("learning.schedule=constant", "learning.warmup=0", "learning.learning_rate=1e-2")
        settings = config("oracle", "learning.epochs=4", *plain)
        method = parse("oracle").recipe.make(bench, settings)
        assert isinstance(method, Supervised)
        (item,) = bench.items
        context = bench.model.prefill(item.request)
        text = toolcalls.write(item.gold, "json", item.request.tools)
        lesson = Lesson(context.turn, bench.model.answer_ids(text))
        with practised(
            bench.model,
            context.prefix,
            [lesson],
            settings.learning,
            informative_loss=0,
            seed=0,
            deadline=Deadline(),
        ) as reference:
            assert method.training.losses == pytest.approx(reference.losses, abs=2e-4)
        assert len(reference.losses) == 4

    def test_it_learns_in_bfloat16(self, bench: Workbench) -> None:
        """There the network computes with a copy of the adapter."""
        bench.model = taught()
        bench.model.network.to(torch.bfloat16)
        bench.decoder = Decoder(bench.model)
        fast = ("learning.epochs=4", "learning.learning_rate=1e-2")
        method = parse("oracle").recipe.make(bench, config("oracle", *fast))
        assert isinstance(method, Supervised)
        assert method.training.losses[-1] < 0.9 * method.training.losses[0]

    def test_rows_that_cannot_be_read_are_told(self, bench: Workbench) -> None:
        bench.training = list
        with pytest.raises(ConfigError, match="none of 0 training rows"):
            parse("sft").recipe.make(bench, config("sft"))


class TestNoReset:
    def test_the_adapter_goes_on_and_is_taken_up_again(self, bench: Workbench) -> None:
        settings = config("no-reset", "learning.learning_rate=1e-2")
        whole, told = NoReset(bench, settings), []
        for item in bench.items[:3]:
            told.append(whole.answer(item))
            if len(told) == 2:
                after_two = {name: b.clone() for name, b in _adapter(whole).b.items()}
        resumed = NoReset(bench, settings)
        again = resumed.answer(bench.items[2])  # as after a kill: the third goes on from the second
        assert again.answer.tool_calls == told[2].answer.tool_calls
        assert again.answer.episode.losses == told[2].answer.episode.losses
        for name, b in _adapter(whole).b.items():
            assert torch.equal(_adapter(resumed).b[name], b)
            assert not torch.equal(after_two[name], b)
        later = NoReset(bench, settings)  # as after a kill between two items
        later.answer(bench.items[3])
        whole.answer(bench.items[3])
        for name, b in _adapter(whole).b.items():
            assert torch.equal(_adapter(later).b[name], b)

    def test_an_item_that_failed_leaves_no_gap(self, bench: Workbench) -> None:
        """After a kill it goes on from the nearest item that has an adapter."""
        settings = config("no-reset", "learning.learning_rate=1e-2")
        first = NoReset(bench, settings)
        first.answer(bench.items[0])
        kept = {name: b.clone() for name, b in _adapter(first).b.items()}
        resumed = NoReset(bench, settings)
        resumed.answer(bench.items[2])  # the second item failed
        again = NoReset(bench, settings)
        again.answer(bench.items[2])
        for name, b in _adapter(again).b.items():
            assert torch.equal(_adapter(resumed).b[name], b)
            assert not torch.equal(kept[name], b)

    @pytest.mark.parametrize("mode", ["activated", "full"])
    def test_no_other_method_meets_its_adapter(self, bench: Workbench, mode: str) -> None:
        """Prefixes are kept for all methods: those of the network without an adapter."""
        fast = ("learning.learning_rate=3e-2", "learning.epochs=4", f"learning.mode={mode}")
        folder, drafted = bench.folder, []
        for size in (4096, 0):
            bench.model.prefixes, bench.folder = PrefixCache(size), folder / str(size)
            method = NoReset(bench, config("no-reset", *fast))
            outcomes = [method.answer(item) for item in bench.items]
            drafted.append([o.draft.generation.log_prob for o in outcomes if o.draft])
            prefix = bench.model.prefill(bench.items[-1].request).prefix
            keys = [layer.keys for layer in prefix.cache.layers]
            if size:
                kept = keys
        assert all(map(torch.equal, kept, keys))
        assert drafted[0] == drafted[1]
        assert drafted[0][0] != drafted[0][1]  # one question, and the adapter in between


def _adapter(method: NoReset) -> AdapterBank:
    assert method.adapter is not None
    return method.adapter
