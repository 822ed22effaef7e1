"""Adapters trained in one bank are those trained alone, whatever becomes of the others. float32."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from quickstudy.config import LearningConfig
from quickstudy.decoding import Deadline
from quickstudy.errors import BudgetSpent, NoExamples, PracticeDiverged
from quickstudy.learning import practice
from quickstudy.learning.lora import AdapterBank, target_layers
from quickstudy.learning.practice import Lesson, Practice, Study, _Learner, practised_together
from quickstudy.model import LanguageModel, Prefix

# PEFT asks transformers by a name that it is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
RATE = 1e-2


def ids_of(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count,), generator=generator).tolist()


def prefix_of(model: LanguageModel, length: int, seed: int = 0) -> Prefix:
    ids = ids_of(length, seed)
    cache = model.empty_prefix().cache
    with torch.no_grad():
        model.network(torch.tensor([ids]), past_key_values=cache, logits_to_keep=1)
    return Prefix(tuple(ids), cache)


def lesson(turn: int, answer: int) -> Lesson:
    return Lesson(ids_of(turn, turn + 100), ids_of(answer, answer + 200))


def studies_of(model: LanguageModel, *, shared: bool) -> list[Study]:
    """Ragged: lessons of 1 to 30 tokens, 1 to 3 a study; one prefix, or three of other lengths."""
    first = prefix_of(model, 40)
    prefixes = [first] * 3 if shared else [first, prefix_of(model, 17, 1), prefix_of(model, 28, 2)]
    lessons = ([lesson(12, 5), lesson(3, 9)], [lesson(25, 2)], [lesson(1, 1), lesson(6, 4),
               lesson(9, 7)])  # fmt: skip
    return [Study(p, told) for p, told in zip(prefixes, lessons, strict=True)]


def trained(
    model: LanguageModel, studies: Sequence[Study], informative_loss: float = 0, **settings: Any
) -> tuple[list[Practice], Tensor]:
    """What became of each adapter: its course and its weights."""
    settings = {"rank": 4, "alpha": 8, "learning_rate": RATE, "stop_loss": 0, **settings}
    with practised_together(
        model,
        studies,
        LearningConfig(**settings),
        informative_loss=informative_loss,
        seed=3,
        deadline=Deadline(),
    ) as (bank, made):
        return made, weights_of(bank)


def weights_of(bank: AdapterBank) -> Tensor:
    """(adapters, parameters)"""
    return torch.cat([values.flatten(1) for values in bank.master.values()], dim=1)


def fill(bank: AdapterBank) -> None:
    generator = torch.Generator().manual_seed(5)
    for values in bank.master.values():
        values.uniform_(-0.3, 0.3, generator=generator)


def assert_as_alone(
    model: LanguageModel, studies: Sequence[Study], **settings: Any
) -> list[Practice]:
    together, weights = trained(model, studies, **settings)
    for study, made, row in zip(studies, together, weights, strict=True):
        (alone,), own = trained(model, [study], **settings)
        assert made.losses == pytest.approx(alone.losses, abs=2e-5, nan_ok=True)
        assert made.known == alone.known
        assert repr(made.failure) == repr(alone.failure)
        if made.failure is None:  # Adam divides a gradient by its size: the least show rounding
            torch.testing.assert_close(row, own[0], rtol=0, atol=0.02 * RATE)
            # where the gradient is not next to nothing, the very numbers
            far = (row - own[0]).abs() > 1e-4 * RATE
            assert float(far.float().mean()) < 0.02
    return together


@pytest.mark.parametrize("mode", ["activated", "full"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 1}, {"upper_layers": 1.0}])
def test_trained_together_is_trained_alone(
    tiny: LanguageModel, shared: bool, mode: str, settings: dict[str, Any]
) -> None:
    made = assert_as_alone(tiny, studies_of(tiny, shared=shared), mode=mode, epochs=3, **settings)
    assert all(one.failure is None for one in made)
    assert len({tuple(one.losses) for one in made}) == 3
    assert len(made[2].losses) == (9 if "batch_size" in settings else 3)


@pytest.mark.parametrize(
    ("tokens", "scores", "expected"),
    [
        (1, 10**9, [3, 2, 1]),
        (90, 10**9, [5, 1]),
        (200, 10**9, [6]),
        (200, 6 * 27 * 67, [6]),
        (200, 6 * 27 * 67 - 1, [5, 1]),
        (200, 5 * 17 * 57 - 1, [3, 2, 1]),
    ],
)
def test_in_groups_of_a_few(
    tiny: LanguageModel,
    tokens: int,
    scores: int,
    expected: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Passes over as many lessons as tokens and scores allow, but a study; the short ones first."""
    real, sizes = practice.Losses.of, list[int]()

    def watch(losses: practice.Losses, rows: Sequence[int]) -> Tensor:
        sizes.append(len(rows))
        return real(losses, rows)

    monkeypatch.setattr(practice.Losses, "of", watch)
    monkeypatch.setattr(practice, "PASS_TOKENS", tokens)
    monkeypatch.setattr(practice, "PASS_SCORES", scores)
    studies = studies_of(tiny, shared=True)  # 2, 1 and 3 lessons of up to 17, 27 and 16 tokens
    trained(tiny, studies, epochs=2)
    assert sizes[: len(sizes) // 2] == expected
    monkeypatch.setattr(practice.Losses, "of", real)
    assert_as_alone(tiny, studies, epochs=3)


@pytest.mark.parametrize("mode", ["activated", "full"])
@pytest.mark.parametrize("shared", [True, False])
class TestOneIsOtherwise:
    """Each of the three in turn, so the longest prefix leaves the batch too."""

    def test_one_is_done_early(self, tiny: LanguageModel, shared: bool, mode: str) -> None:
        studies = studies_of(tiny, shared=shared)
        first, _ = trained(tiny, studies, mode=mode, epochs=8)
        # the loss that the quickest has after some steps, and no other has yet
        limit = min(one.losses[4] for one in first)
        made = assert_as_alone(tiny, studies, mode=mode, epochs=8, stop_loss=limit + 1e-3)
        assert len({len(one.losses) for one in made}) > 1

    def test_one_knows_all_of_its_lessons(
        self, tiny: LanguageModel, shared: bool, mode: str
    ) -> None:
        studies = studies_of(tiny, shared=shared)
        first, _ = trained(tiny, studies, mode=mode, epochs=1)
        for place in range(3):
            limit = first[place].losses[0]  # of one lesson this is its loss itself
            one = Study(studies[place].prefix, studies[place].lessons[:1])
            (alone,), _ = trained(tiny, [one], mode=mode, epochs=1)
            others = [lesson(25, 2), lesson(12, 5), lesson(9, 7)]
            mixed = [Study(s.prefix, [o]) for s, o in zip(studies, others, strict=True)]
            mixed[place] = one
            limit = alone.losses[0] + 1e-3
            made = assert_as_alone(
                tiny, mixed, mode=mode, epochs=3, informative_loss=limit, batch_size=1
            )
            assert isinstance(made[place].failure, NoExamples)
            assert made[place].known == [0]

    def test_one_diverges(
        self, tiny: LanguageModel, shared: bool, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its second loss is no number; the others' courses are what they were."""
        studies = studies_of(tiny, shared=shared)
        expected, weights = trained(tiny, studies, mode=mode, epochs=4)
        real = _Learner.step
        for place in range(3):
            lessons = len(studies[place].lessons)  # by which its learner is known

            def step(self: _Learner, gradients: Sequence[Tensor], lessons: int = lessons) -> None:
                real(self, gradients)
                if self._lessons == lessons:
                    for parameter in self.parameters:
                        parameter.detach().fill_(torch.nan)

            monkeypatch.setattr(_Learner, "step", step)
            made, after = trained(tiny, studies, mode=mode, epochs=4)
            assert isinstance(made[place].failure, PracticeDiverged)
            assert len(made[place].losses) == 1, "the second is no number"
            for other in {0, 1, 2} - {place}:
                assert made[other].failure is None
                assert made[other].losses == pytest.approx(expected[other].losses, abs=2e-5)
                torch.testing.assert_close(after[other], weights[other], rtol=0, atol=0.02 * RATE)


def test_each_row_goes_through_its_own(tiny: LanguageModel) -> None:
    """And in any order, and several rows through one."""
    bank = AdapterBank(
        tiny.network,
        rank=2,
        alpha=8,
        targets="all-linear",
        generators=[torch.Generator().manual_seed(n) for n in range(3)],
    )
    fill(bank)
    feeds = [ids_of(9, n) for n in range(4)]
    order = [2, 0, 2, 1]
    with torch.no_grad(), bank.attached():
        bank.assign(order)
        together, _ = tiny.forward(feeds, None, None, keep=9)
        for row, adapter in enumerate(order):
            bank.assign([adapter])
            alone, _ = tiny.forward([feeds[row]], None, None, keep=9)
            torch.testing.assert_close(together[row], alone[0], rtol=0, atol=2e-5)
            bank.assign([(adapter + 1) % 3])
            other, _ = tiny.forward([feeds[row]], None, None, keep=9)
            assert float((other - alone).abs().max()) > 0.01


def test_gradients_of_rows_in_any_order(tiny: LanguageModel) -> None:
    """Two of the rows go through one adapter, whose gradient is their sum."""
    bank = AdapterBank(
        tiny.network,
        rank=2,
        alpha=8,
        targets="all-linear",
        generators=[torch.Generator().manual_seed(n) for n in range(3)],
    )
    fill(bank)
    order, turns = [2, 0, 2, 1], [ids_of(9, n) for n in range(4)]

    def gradients(rows: Sequence[int]) -> Tensor:
        bank.zero_gradient()
        bank.assign([order[row] for row in rows])
        told, _ = tiny.answer_log_probs(None, [turns[row] for row in rows], [[5, 6]] * len(rows))
        told.sum().backward()
        of_all = [torch.cat([g.flatten() for g in bank.gradients(n)]) for n in range(3)]
        return torch.stack(of_all)

    with bank.attached():
        together = gradients([0, 1, 2, 3])
        alone = sum(gradients([row]) for row in range(4))
    largest = float(together.abs().max())
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * largest)


class TestThreads:
    def test_only_the_thread_that_attached_sees_it(self, tiny: LanguageModel) -> None:
        def logits() -> Tensor:
            with torch.no_grad():
                made: Tensor = tiny.network(torch.tensor([ids_of(20, 0)]), use_cache=False).logits
            return made

        before = logits()
        bank = AdapterBank(
            tiny.network, rank=2, alpha=8, targets="all-linear", generators=[torch.Generator()]
        )
        fill(bank)
        beside: list[Tensor] = []
        with bank.attached():
            inside = logits()
            assert not torch.equal(inside, before)
            thread = threading.Thread(target=lambda: beside.append(logits()))
            thread.start()
            thread.join()
            assert torch.equal(logits(), inside)
        assert torch.equal(beside[0], before)
        assert torch.equal(logits(), before)


class Fault(Exception):
    pass


@pytest.mark.parametrize("error", [Fault, KeyboardInterrupt, BudgetSpent])
@pytest.mark.parametrize("where", ["block", "training", "lower layers"])
def test_reset_is_bit_for_bit(
    tiny: LanguageModel, error: type[BaseException], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.tensor([ids_of(20, 0)])
    hooks = [list(module._forward_hooks) for module in tiny.network.modules()]
    before = tiny.network(ids, use_cache=False).logits
    studies = studies_of(tiny, shared=False)

    def fail(*_: object, **__: object) -> None:
        raise error

    def run() -> None:
        config = LearningConfig(stop_loss=0)
        with practised_together(
            tiny, studies, config, informative_loss=0, seed=0, deadline=Deadline()
        ):
            assert where == "block"
            raise error

    with monkeypatch.context() as patches:
        if where == "training":
            patches.setattr(torch.optim.AdamW, "step", fail)
        elif where == "lower layers":
            first = tiny.network.get_decoder().layers[0]
            first.register_forward_hook(fail)
            patches.setattr(first, "_forward_hooks", first._forward_hooks)
        with pytest.raises(error):
            run()
    if where == "lower layers":
        tiny.network.get_decoder().layers[0]._forward_hooks.clear()
    assert torch.equal(tiny.network(ids, use_cache=False).logits, before)
    assert [list(module._forward_hooks) for module in tiny.network.modules()] == hooks
    assert not any("forward" in vars(layer) for layer in tiny.network.get_decoder().layers)


class TestUpperFiles:
    """Adapters on the upper layers only, against PEFT's `layers_to_transform`."""

    @pytest.fixture
    def model(self, tiny: LanguageModel) -> LanguageModel:
        config = Qwen2Config(
            **{**tiny.network.config.to_dict(), "num_hidden_layers": 5, "layer_types": None}
        )
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = Qwen2ForCausalLM(config)
        return LanguageModel(network.requires_grad_(False).eval(), tiny.tokenizer, "five")

    def logits(self, network: Any) -> Tensor:
        with torch.no_grad():
            made: Tensor = network(input_ids=torch.tensor([ids_of(30, 1)]), use_cache=False).logits
        return made

    @pytest.mark.parametrize(("upper", "first"), [(0.33, 3), (0.6, 2), (0.01, 4), (0.9, 1)])
    @pytest.mark.parametrize("adapter", [0, 1])
    def test_peft_reads_what_we_save(
        self, model: LanguageModel, tmp_path: Path, upper: float, first: int, adapter: int
    ) -> None:
        bank = AdapterBank(
            model.network,
            rank=2,
            alpha=6,
            targets="all-linear",
            generators=[torch.Generator(), torch.Generator()],
            upper=upper,
        )
        fill(bank)
        bank.save(tmp_path, adapter)
        with bank.attached():
            bank.assign([adapter])
            ours = self.logits(model.network)
        assert not torch.equal(ours, self.logits(model.network))
        theirs = PeftModel.from_pretrained(copy.deepcopy(model.network), tmp_path)
        torch.testing.assert_close(ours, self.logits(theirs), rtol=0, atol=1e-5)
        adapted = {n for n, m in theirs.base_model.model.named_modules() if hasattr(m, "lora_A")}
        assert adapted == set(bank.layers)
        assert {name.split(".")[2] for name in adapted} == set(map(str, range(first, 5)))
        again = AdapterBank.load(model.network, tmp_path)
        assert torch.equal(weights_of(again)[0], weights_of(bank)[adapter])
        with again.attached():
            torch.testing.assert_close(self.logits(model.network), ours, rtol=0, atol=1e-5)

    def test_we_read_what_peft_saves(self, model: LanguageModel, tmp_path: Path) -> None:
        names = {name.rsplit(".", 1)[-1] for name, _ in target_layers(model.network, "all-linear")}
        config = LoraConfig(
            r=2,
            lora_alpha=6,
            target_modules=sorted(names),
            layers_to_transform=[3, 4],
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        )
        theirs = get_peft_model(copy.deepcopy(model.network), config)
        theirs.save_pretrained(tmp_path)
        bank = AdapterBank.load(model.network, tmp_path)
        assert {name.split(".")[2] for name in bank.layers} == {"3", "4"}
        with bank.attached():
            ours = self.logits(model.network)
        torch.testing.assert_close(ours, self.logits(theirs), rtol=0, atol=1e-5)
        assert float((ours - self.logits(model.network)).abs().max()) > 0.01
