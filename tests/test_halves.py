"""The fast path of practice gives the losses and gradients of one plain pass of the network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from families import ARCHITECTURES, FAMILIES, ids_of, network, prefix_of
from torch import Tensor

from quickstudy import halves
from quickstudy.config import LearningConfig
from quickstudy.learning import practice
from quickstudy.learning.lora import AdapterBank
from quickstudy.learning.practice import Lesson, Losses, Study, lesson_losses
from quickstudy.model import LanguageModel, start


@cache
def model_of(architecture: str) -> LanguageModel:
    tokenizer = FAMILIES[architecture].tokenizer()
    return LanguageModel(network(architecture, tokenizer), tokenizer, architecture)


def lesson(turn: int, answer: int) -> Lesson:
    return Lesson(ids_of(turn, turn + 100), ids_of(answer, answer + 200))


def bank_of(model: LanguageModel, adapters: int, upper: float) -> AdapterBank:
    """A bank whose adapters do something."""
    bank = AdapterBank(
        model.network,
        rank=3,
        alpha=6,
        targets="all-linear",
        generators=[torch.Generator().manual_seed(seed) for seed in range(adapters)],
        upper=upper,
    )
    generator = torch.Generator().manual_seed(9)
    for values in bank.master.values():
        values.uniform_(-0.1, 0.1, generator=generator)
    return bank


def assert_same(
    model: LanguageModel, studies: list[Study], rows: list[int], upper: float, mode: str
) -> None:
    """Losses and gradients of some rows, each through its study's own adapter."""
    config = LearningConfig(mode=mode, upper_layers=upper)
    bank = bank_of(model, len(studies), upper)
    all_rows = [(n, s.prefix, one) for n, s in enumerate(studies) for one in s.lessons]
    chosen = [all_rows[row] for row in rows]
    with bank.attached():
        losses = Losses(model, studies, config)
        whole = [part.halfway is None for part in losses.parts]
        assert whole == [not halves.divisible(model)]
        bank.assign([n for n, _, _ in chosen])
        results = []
        for compute in (
            lambda: losses.of(rows),
            lambda: lesson_losses(model, [p for _, p, _ in chosen], [o for *_, o in chosen], mode),
        ):
            bank.zero_gradient()
            told = compute()
            (told * torch.arange(1, len(rows) + 1)).sum().backward()
            gradients = [g.flatten() for n in range(len(studies)) for g in bank.gradients(n)]
            results.append((told, torch.cat(gradients)))
    (fast, fast_gradient), (plain, gradient) = results
    torch.testing.assert_close(fast, plain, rtol=0, atol=2e-5)
    largest = float(gradient.abs().max())
    assert largest > 0
    torch.testing.assert_close(fast_gradient, gradient, rtol=0, atol=5e-5 * largest)


@pytest.mark.parametrize("mode", ["activated", "full"])
@pytest.mark.parametrize("upper", [1.0, 0.5])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestSameAsAPlainPass:
    """gemma3's windows are 16 long: prefixes, turns and answers are shorter and longer."""

    def test_one_study(self, architecture: str, upper: float, mode: str) -> None:
        model = model_of(architecture)
        study = Study(prefix_of(model, 40), [lesson(25, 4), lesson(3, 9), lesson(1, 1)])
        assert_same(model, [study], [0, 1, 2], upper, mode)
        assert_same(model, [study], [1], upper, mode)

    def test_several_studies(self, architecture: str, upper: float, mode: str) -> None:
        """Prefixes of different lengths; then without the rows of the longest."""
        model = model_of(architecture)
        studies = [
            Study(prefix_of(model, 40), [lesson(5, 4), lesson(3, 9)]),
            Study(prefix_of(model, 23), [lesson(18, 2)]),
            Study(prefix_of(model, 9), [lesson(4, 4), lesson(30, 3)]),
        ]
        assert_same(model, studies, [0, 1, 2, 3, 4], upper, mode)
        assert_same(model, studies, [1, 4], upper, mode)
        assert_same(model, studies, [2, 3], upper, mode)

    def test_equal_lengths_and_no_prefix(self, architecture: str, upper: float, mode: str) -> None:
        """Nothing is padded, so that the network makes another mask, or none."""
        model = model_of(architecture)
        for length in (40, 0):
            study = Study(prefix_of(model, length), [lesson(20, 6)] * 2)
            assert_same(model, [study], [0, 1], upper, mode)
            assert_same(model, [study], [0], upper, mode)


@pytest.mark.parametrize("mode", ["activated", "full"])
def test_with_and_without_a_prefix(mode: str) -> None:
    for architecture in ("qwen2", "gemma3"):
        model = model_of(architecture)
        studies = [
            Study(prefix_of(model, 0), [lesson(5, 4)]),
            Study(prefix_of(model, 23), [lesson(18, 2)]),
        ]
        assert_same(model, studies, [0, 1], 0.5, mode)
        assert_same(model, studies, [0], 0.5, mode)


def mock_error(told: str) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise TypeError(told)

    return fail


class TestIndivisible:
    """Such a network practises by plain passes."""

    def model(self) -> LanguageModel:
        return LanguageModel(
            network("llama", FAMILIES["llama"].tokenizer()), FAMILIES["llama"].tokenizer(), "odd"
        )

    def test_the_usual_build_is_tried_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = self.model()
        assert halves.divisible(model)
        monkeypatch.setattr(halves, "lower", lambda *_: pytest.fail("tried again"))
        assert halves.divisible(model)

    @pytest.mark.parametrize("odd", ["bias", "scaling", "raises", "norm"])
    def test_takes_the_reference_path(self, odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model = self.model()
        head = model.network.get_output_embeddings()
        if odd == "bias":
            head.bias = torch.nn.Parameter(torch.ones(head.out_features), requires_grad=False)
        elif odd == "scaling":  # as Granite's logits_scaling: the network itself does more
            forward = model.network.forward

            def scaled(*args: object, **more: object) -> object:
                output = forward(*args, **more)
                output.logits = output.logits / 1.2
                return output

            monkeypatch.setattr(model.network, "forward", scaled)
        elif odd == "raises":
            broken = mock_error("an unusual layer")
            monkeypatch.setattr(halves, "upper", broken)
        else:
            model.network.get_decoder().final_norm = model.network.get_decoder().norm
            monkeypatch.setattr(type(model.network.get_decoder()), "norm", None, raising=False)
            del model.network.get_decoder().norm
        assert not halves.divisible(model)
        calls = []
        real = practice.lesson_losses

        def watch(*args: object) -> Tensor:
            calls.append(args)
            return real(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(practice, "lesson_losses", watch)
        if odd != "norm":
            study = Study(prefix_of(model, 12), [lesson(5, 4), lesson(3, 9)])
            assert_same(model, [study], [1, 0], 0.5, "activated")
            assert len(calls) == 1


class TestTakingDown:
    def test_the_layers_are_themselves_again(self, tiny: LanguageModel) -> None:
        layers = tiny.network.get_decoder().layers
        before = tiny.network(torch.tensor([[1, 2]]), use_cache=False).logits
        with pytest.raises(KeyboardInterrupt), halves._taking_down(layers):
            raise KeyboardInterrupt
        assert not any("forward" in vars(layer) for layer in layers)
        assert torch.equal(tiny.network(torch.tensor([[1, 2]]), use_cache=False).logits, before)

    def test_two_threads_at_once(self, tiny: LanguageModel) -> None:
        """Each gets what its own pass hands to the layers."""

        def taken(ids: list[int]) -> Tensor:
            return halves.lower(tiny, start([tiny.empty_prefix()]), [ids], 1).hidden

        texts = [[n, n + 1, n + 2] for n in range(1, 21)]
        alone = [taken(ids) for ids in texts]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(taken, texts))
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one, other)

    def test_another_thread_computes_with_the_whole_network(self, tiny: LanguageModel) -> None:
        def logits() -> Tensor:
            with torch.no_grad():
                made: Tensor = tiny.network(torch.tensor([[1, 2, 3]]), use_cache=False).logits
            return made

        before, beside = logits(), list[Tensor]()
        with halves._taking_down(tiny.network.get_decoder().layers[1:]) as handed:
            thread = threading.Thread(target=lambda: beside.append(logits()))
            thread.start()
            thread.join()
            assert handed == []
            assert not torch.equal(logits(), before)
        assert torch.equal(beside[0], before)
