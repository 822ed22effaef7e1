"""PEFT is the reference: the same A and B give the same logits, losses, gradients and steps.

All in float32. "The same" is within 1e-6 for losses, 1e-5 for logits, 1e-5 of a matrix's largest
gradient for gradients, and half a percent of one step for weights (Adam divides a gradient by its
own size, so the smallest ones show rounding the most).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import get_scheduler

from quickstudy.config import Config, LearningConfig
from quickstudy.decoding import Deadline
from quickstudy.learning.lora import AdapterBank, Targets, target_layers
from quickstudy.learning.practice import Lesson, Study, lesson_losses, practised_together
from quickstudy.model import LanguageModel, Prefix

# PEFT asks transformers by a name that it is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
RANK, ALPHA = 4, 12
TARGETS: tuple[Targets, ...] = ("all-linear", "attention")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def random_ids(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count,), generator=generator).tolist()


PREFIX = random_ids(40, 0)
LESSONS = [  # ragged in turn and answer
    Lesson(random_ids(12, 1), random_ids(5, 2)),
    Lesson(random_ids(3, 3), random_ids(9, 4)),
    Lesson(random_ids(25, 5), random_ids(1, 6)),
]


def new_adapter(
    model: LanguageModel,
    targets: Targets = "all-linear",
    *,
    trained: bool,
    upper: float = 1.0,
) -> AdapterBank:
    """An adapter as practice makes it (B zero), or one as if it had been trained."""
    generator = torch.Generator().manual_seed(7)
    adapter = AdapterBank(
        model.network,
        rank=RANK,
        alpha=ALPHA,
        targets=targets,
        generators=[generator],
        upper=upper,
    )
    if trained:
        fill(adapter, generator)
    return adapter


def fill(bank: AdapterBank, generator: torch.Generator) -> None:
    """Gives every B of every adapter numbers, as if it had been trained."""
    for (_, part), values in bank.master.items():
        if part == "B":
            values.uniform_(-0.3, 0.3, generator=generator)
    bank.sync()


def made_prefix(model: LanguageModel, ids: Sequence[int]) -> Prefix:
    cache = model.empty_prefix().cache
    with torch.no_grad():
        model.network(torch.tensor([ids]), past_key_values=cache, logits_to_keep=1)
    return Prefix(tuple(ids), cache)


def logits_of(network: nn.Module, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        return cast(Tensor, network(input_ids=torch.tensor([ids]), use_cache=False).logits[0])


@dataclass
class Reference:
    """PEFT around a copy of our network, holding the same A and B as an adapter of ours."""

    peft: Any
    activated: bool

    @classmethod
    def of(
        cls, model: LanguageModel, adapter: AdapterBank, *, activated: bool = False
    ) -> Reference:
        config = LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            lora_dropout=0.0,
            target_modules="all-linear" if adapter.targets == "all-linear" else ATTENTION,
            alora_invocation_tokens=[1] if activated else None,
            task_type="CAUSAL_LM",
        )
        reference = cls(get_peft_model(copy.deepcopy(model.network), config), activated)
        names = {name for name, _ in reference.layers()}
        assert names == set(adapter.layers), "PEFT adapts the same layers"
        with torch.no_grad():
            for name, layer in reference.layers():
                layer.lora_A["default"].weight.copy_(adapter.a[name][0])
                layer.lora_B["default"].weight.copy_(adapter.b[name][0])
        return reference

    def layers(self) -> Iterator[tuple[str, Any]]:
        for name, module in self.peft.base_model.model.named_modules():
            if hasattr(module, "lora_A"):
                yield name, module

    def a(self, name: str) -> Tensor:
        return cast(Tensor, dict(self.layers())[name].lora_A["default"].weight)

    def b(self, name: str) -> Tensor:
        return cast(Tensor, dict(self.layers())[name].lora_B["default"].weight)

    def logits(self, rows: Sequence[Sequence[int]], active: Sequence[int]) -> Tensor:
        """All logits of a left-padded batch of whole sequences, no cache.

        active: for each row, how many tokens at its end the activated adapter acts on.
        """
        width = max(map(len, rows))
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        more = {"alora_offsets": list(active)} if self.activated else {}
        output = self.peft(
            input_ids=torch.tensor([[0] * (width - len(row)) + list(row) for row in rows]),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            **more,
        )
        return cast(Tensor, output.logits)

    def losses(self, prefix: Sequence[int], lessons: Sequence[Lesson]) -> Tensor:
        rows = [[*prefix, *lesson.turn, *lesson.answer] for lesson in lessons]
        active = [len(lesson.turn) + len(lesson.answer) for lesson in lessons]
        logits = self.logits(rows, active)
        return torch.stack(
            [
                nn.functional.cross_entropy(
                    row[-len(lesson.answer) - 1 : -1], torch.tensor(lesson.answer)
                )
                for row, lesson in zip(logits, lessons, strict=True)
            ]
        )


def assert_same_gradients(adapter: AdapterBank, reference: Reference) -> None:
    for name in adapter.layers:
        for ours, theirs in (
            (adapter.a[name], reference.a(name)),
            (adapter.b[name], reference.b(name)),
        ):
            assert ours.grad is not None
            assert theirs.grad is not None
            largest = float(theirs.grad.abs().max())
            assert largest > 0
            torch.testing.assert_close(ours.grad[0], theirs.grad, rtol=0, atol=1e-5 * largest)


def assert_same_weights(adapter: AdapterBank, reference: Reference, within: float) -> None:
    for name in adapter.layers:
        torch.testing.assert_close(adapter.a[name][0], reference.a(name), rtol=0, atol=within)
        torch.testing.assert_close(adapter.b[name][0], reference.b(name), rtol=0, atol=within)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("mode", ["full", "activated"])
class TestPeft:
    """`full` against plain LoRA; `activated` on our prefix cache against PEFT's activated LoRA
    (its offsets given explicitly) on whole sequences without a cache."""

    def test_same_logits(self, tiny: LanguageModel, targets: Targets, mode: str) -> None:
        adapter = new_adapter(tiny, targets, trained=True)
        reference = Reference.of(tiny, adapter, activated=mode == "activated")
        new = [[*lesson.turn, *lesson.answer] for lesson in LESSONS]
        rows = [[*PREFIX, *row] for row in new]
        prefix = made_prefix(tiny, PREFIX)
        with torch.no_grad(), adapter.attached():
            if mode == "full":
                ours, _ = tiny.forward(rows, None, None, keep=10)
            else:
                ours, _ = tiny.forward(new, prefix.fork(3), None, keep=10)
        with torch.no_grad():
            theirs = reference.logits(rows, [len(row) for row in new])[:, -10:]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        base = logits_of(tiny.network, rows[0])[-10:]
        assert float((ours[0] - base).abs().max()) > 0.01, "the adapter does something"

    def test_same_losses_and_gradients(
        self, tiny: LanguageModel, targets: Targets, mode: str
    ) -> None:
        adapter = new_adapter(tiny, targets, trained=True)
        reference = Reference.of(tiny, adapter, activated=mode == "activated")
        prefix = made_prefix(tiny, PREFIX)
        with adapter.attached():
            ours = lesson_losses(tiny, [prefix] * 3, LESSONS, mode)
            ours.mean().backward()
        theirs = reference.losses(PREFIX, LESSONS)
        theirs.mean().backward()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert_same_gradients(adapter, reference)

    def test_same_weights_after_three_steps(
        self, tiny: LanguageModel, targets: Targets, mode: str
    ) -> None:
        """The whole of practice, from its own fresh A and zero B, against a plain PEFT loop."""
        config = LearningConfig(
            mode=mode, targets=targets, rank=RANK, alpha=ALPHA, learning_rate=1e-2, epochs=3,
            stop_loss=0, upper_layers=1,
        )  # fmt: skip
        reference = Reference.of(
            tiny, new_adapter(tiny, targets, trained=False), activated=mode == "activated"
        )
        optimizer = torch.optim.AdamW(
            [p for p in reference.peft.parameters() if p.requires_grad],
            lr=1e-2,
            weight_decay=0.0,
        )
        losses = []
        for _ in range(3):
            loss = reference.losses(PREFIX, LESSONS).mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        prefix = made_prefix(tiny, PREFIX)
        with practised_together(
            tiny,
            [Study(prefix, LESSONS)],
            config,
            informative_loss=0,
            seed=7,
            deadline=Deadline(),
        ) as (bank, (practice,)):
            assert practice.losses == pytest.approx(losses, abs=1e-6)
            assert_same_weights(bank, reference, within=0.005 * config.learning_rate)
            for b in bank.b.values():
                assert float(b.detach().abs().max()) > config.learning_rate


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("mode", ["full", "activated"])
def test_the_papers_recipe_is_a_plain_loop(tiny: LanguageModel, mode: str, count: int) -> None:
    """Batch 1, 5 epochs, cosine with warm-up 0.03: PEFT, AdamW and transformers' own schedule."""
    paper = Config(method="tt-si-paper").learning
    assert (paper.batch_size, paper.epochs, paper.stop_loss) == (1, 5, 0)
    config = paper.model_copy(
        update={"mode": mode, "rank": RANK, "alpha": ALPHA, "learning_rate": 1e-2}
    )
    reference = Reference.of(tiny, new_adapter(tiny, trained=False), activated=mode == "activated")
    optimizer = torch.optim.AdamW(
        [p for p in reference.peft.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0
    )
    schedule = get_scheduler("cosine", optimizer, math.ceil(5 * count * 0.03), 5 * count)
    losses = []
    for _ in range(5):
        for lesson in LESSONS[:count]:
            loss = reference.losses(PREFIX, [lesson]).mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    prefix = made_prefix(tiny, PREFIX)
    with practised_together(
        tiny,
        [Study(prefix, LESSONS[:count])],
        config,
        informative_loss=0,
        seed=7,
        deadline=Deadline(),
    ) as (bank, (practice,)):
        assert practice.losses == pytest.approx(losses, abs=1e-5)
        # 15 steps add up more rounding than 3
        assert_same_weights(bank, reference, within=0.02 * config.learning_rate)
        for b in bank.b.values():
            assert float(b.detach().abs().max()) > config.learning_rate


class TestActivated:
    def test_differs_from_full(self, tiny: LanguageModel) -> None:
        """Else the comparisons above could not tell the modes apart."""
        adapter = new_adapter(tiny, trained=True)
        prefix = made_prefix(tiny, PREFIX)
        with torch.no_grad(), adapter.attached():
            activated = lesson_losses(tiny, [prefix] * 3, LESSONS, "activated")
            full = lesson_losses(tiny, [prefix] * 3, LESSONS, "full")
        assert float((activated - full).abs().max()) > 1e-3

    def test_without_a_prefix_is_full(self, tiny: LanguageModel) -> None:
        adapter = new_adapter(tiny, trained=True)
        with torch.no_grad(), adapter.attached():
            activated = lesson_losses(tiny, [tiny.empty_prefix()] * 3, LESSONS, "activated")
            full = lesson_losses(tiny, [tiny.empty_prefix()] * 3, LESSONS, "full")
        torch.testing.assert_close(activated, full, rtol=0, atol=1e-6)


@pytest.mark.parametrize("targets", TARGETS)
class TestFiles:
    def test_peft_loads_what_we_save(
        self, tiny: LanguageModel, tmp_path: Path, targets: Targets
    ) -> None:
        adapter = new_adapter(tiny, targets, trained=True)
        adapter.save(tmp_path / "new" / "folder")
        loaded = PeftModel.from_pretrained(copy.deepcopy(tiny.network), tmp_path / "new" / "folder")
        with adapter.attached():
            ours = logits_of(tiny.network, PREFIX)
        torch.testing.assert_close(ours, logits_of(loaded, PREFIX), rtol=0, atol=1e-5)
        assert float((ours - logits_of(tiny.network, PREFIX)).abs().max()) > 0.01

    def test_we_load_what_peft_saves(
        self, tiny: LanguageModel, tmp_path: Path, targets: Targets
    ) -> None:
        reference = Reference.of(tiny, new_adapter(tiny, targets, trained=True))
        reference.peft.save_pretrained(tmp_path)
        adapter = AdapterBank.load(tiny.network, tmp_path)
        assert (adapter.rank, adapter.alpha, adapter.targets) == (RANK, ALPHA, targets)
        with adapter.attached():
            ours = logits_of(tiny.network, PREFIX)
        torch.testing.assert_close(ours, logits_of(reference.peft, PREFIX), rtol=0, atol=1e-5)
        assert float((ours - logits_of(tiny.network, PREFIX)).abs().max()) > 0.01

    def test_we_load_what_we_save(
        self, tiny: LanguageModel, tmp_path: Path, targets: Targets
    ) -> None:
        adapter = new_adapter(tiny, targets, trained=True)
        adapter.save(tmp_path)
        again = AdapterBank.load(tiny.network, tmp_path)
        assert again.scaling == adapter.scaling
        for name in adapter.layers:
            assert torch.equal(again.a[name], adapter.a[name])
            assert torch.equal(again.b[name], adapter.b[name])


class TestForeignFiles:
    def test_other_layers_are_refused(self, tiny: LanguageModel, tmp_path: Path) -> None:
        config = LoraConfig(r=RANK, target_modules=["q_proj"], task_type="CAUSAL_LM")
        get_peft_model(copy.deepcopy(tiny.network), config).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="not those of this network"):
            AdapterBank.load(tiny.network, tmp_path)

    @pytest.mark.parametrize("variant", ["use_rslora", "use_dora"])
    def test_variants_that_compute_otherwise_are_refused(
        self, tiny: LanguageModel, tmp_path: Path, variant: str
    ) -> None:
        """PEFT scales rank-stabilised and weight-decomposed adapters otherwise than we do."""
        config = LoraConfig(
            r=RANK, target_modules="all-linear", task_type="CAUSAL_LM", **{variant: True}
        )
        get_peft_model(copy.deepcopy(tiny.network), config).save_pretrained(tmp_path)
        assert json.loads((tmp_path / "adapter_config.json").read_text())[variant] is True
        with pytest.raises(ValueError, match=variant):
            AdapterBank.load(tiny.network, tmp_path)


class TestAttached:
    def test_a_new_adapter_changes_nothing(self, tiny: LanguageModel) -> None:
        before = logits_of(tiny.network, PREFIX)
        with new_adapter(tiny, trained=False).attached():
            assert torch.equal(logits_of(tiny.network, PREFIX), before)

    def test_leaving_restores_every_bit(self, tiny: LanguageModel) -> None:
        before = logits_of(tiny.network, PREFIX)
        weights = {name: tensor.clone() for name, tensor in tiny.network.state_dict().items()}
        hooks = [dict(module._forward_hooks) for module in tiny.network.modules()]
        adapter = new_adapter(tiny, trained=True)
        with adapter.attached():
            inside = logits_of(tiny.network, PREFIX)
        assert not torch.equal(inside, before)
        assert torch.equal(logits_of(tiny.network, PREFIX), before)
        assert [dict(module._forward_hooks) for module in tiny.network.modules()] == hooks
        for name, tensor in tiny.network.state_dict().items():
            assert torch.equal(tensor, weights[name]), name
        with adapter.attached():
            assert torch.equal(logits_of(tiny.network, PREFIX), inside), "and it can come back"

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
    def test_leaving_by_an_error_restores_too(
        self, tiny: LanguageModel, error: type[BaseException]
    ) -> None:
        before = logits_of(tiny.network, PREFIX)

        def interrupted() -> None:
            with new_adapter(tiny, trained=True).attached():
                raise error

        with pytest.raises(error):
            interrupted()
        assert torch.equal(logits_of(tiny.network, PREFIX), before)

    def test_an_error_while_attaching_restores_too(
        self, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = logits_of(tiny.network, PREFIX)
        adapter = new_adapter(tiny, trained=True)
        last = list(adapter.layers.values())[-1]

        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(last, "register_forward_hook", fail)
        with pytest.raises(KeyboardInterrupt), adapter.attached():
            pass
        assert torch.equal(logits_of(tiny.network, PREFIX), before)

    def test_no_gradient_reaches_the_network(self, tiny: LanguageModel) -> None:
        adapter = new_adapter(tiny, trained=True)
        with adapter.attached():
            lesson_losses(tiny, [tiny.empty_prefix()] * 3, LESSONS, "activated").sum().backward()
        assert all(parameter.grad is None for parameter in tiny.network.parameters())


class TestAdapter:
    def test_drawn_as_peft_draws(self, tiny: LanguageModel) -> None:
        """U(-1/sqrt(in), 1/sqrt(in)): PEFT's kaiming_uniform_ with a = sqrt(5)."""
        config = LoraConfig(r=64, target_modules="all-linear", init_lora_weights=True)
        theirs = get_peft_model(copy.deepcopy(tiny.network), config)
        ours = AdapterBank(
            tiny.network, rank=64, alpha=1, targets="all-linear", generators=[torch.Generator()]
        )
        for name, layer in ours.layers.items():
            a = ours.a[name][0].detach()
            reference = (
                theirs.base_model.model.get_submodule(name).lora_A["default"].weight.detach()
            )
            bound = layer.in_features**-0.5
            assert a.shape == reference.shape
            assert bound * 0.98 < float(a.abs().max()) <= bound
            assert float(reference.abs().max()) <= bound
            assert float(a.std()) == pytest.approx(float(reference.std()), rel=0.05)
            assert not ours.b[name].any()

    def test_one_seed_one_adapter(self, tiny: LanguageModel) -> None:
        def drawn(seed: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            adapter = AdapterBank(
                tiny.network, rank=2, alpha=4, targets="attention", generators=[generator]
            )
            return torch.cat([a.detach().flatten() for a in adapter.a.values()])

        assert torch.equal(drawn(1), drawn(1))
        assert not torch.equal(drawn(1), drawn(2))

    def test_drawing_leaves_the_global_random_state(self, tiny: LanguageModel) -> None:
        before = torch.random.get_rng_state()
        new_adapter(tiny, trained=False)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_targets(self, tiny: LanguageModel) -> None:
        every = [name for name, _ in target_layers(tiny.network, "all-linear")]
        attention = [name for name, _ in target_layers(tiny.network, "attention")]
        assert len(every) == 14, "7 a layer, without the output head"
        assert len(attention) == 8
        assert {name.rsplit(".", 1)[-1] for name in attention} == set(ATTENTION)
        assert not any("lm_head" in name for name in every)

    def test_float32_beside_a_bfloat16_network(self, tiny: LanguageModel) -> None:
        """A step of 1e-4 is lost in a bf16 weight; the network's own type stays what it is."""
        model = LanguageModel(tiny.network.to(torch.bfloat16), tiny.tokenizer, "tiny")
        adapter = new_adapter(model, trained=True)
        assert {p.dtype for p in adapter.parameters()} == {torch.float32}
        with adapter.attached():
            losses = lesson_losses(model, [model.empty_prefix()] * 3, LESSONS, "activated")
            losses.sum().backward()
            assert logits_of(model.network, PREFIX).dtype == torch.bfloat16
        for gradient, parameter in zip(adapter.gradients(), adapter.parameters(), strict=True):
            assert gradient.dtype == torch.float32
            assert gradient.shape == parameter.shape
            assert bool(gradient.isfinite().all())
            assert float(gradient.abs().max()) > 0
