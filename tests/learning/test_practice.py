"""Practice trains what is asked, stops when it should, and leaves no trace of any outcome."""

from __future__ import annotations

import _thread
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import TrainingArguments, get_scheduler

from quickstudy.config import LearningConfig
from quickstudy.decoding import Deadline
from quickstudy.errors import BudgetSpent, NoExamples, PracticeDiverged
from quickstudy.learning import practice
from quickstudy.learning.practice import (
    Lesson,
    Losses,
    Practice,
    Study,
    lesson_losses,
    practised,
    practised_together,
)
from quickstudy.model import LanguageModel, Prefix


def random_ids(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count,), generator=generator).tolist()


PREFIX = random_ids(40, 0)
LESSONS = [
    Lesson(random_ids(12, 1), random_ids(5, 2)),
    Lesson(random_ids(3, 3), random_ids(9, 4)),
    Lesson(random_ids(25, 5), random_ids(2, 6)),
]
MODES = ("activated", "full")


@pytest.fixture
def prefix(tiny: LanguageModel) -> Prefix:
    cache = tiny.empty_prefix().cache
    with torch.no_grad():
        tiny.network(torch.tensor([PREFIX]), past_key_values=cache, logits_to_keep=1)
    return Prefix(tuple(PREFIX), cache)


@contextmanager
def practising(
    model: LanguageModel,
    prefix: Prefix,
    lessons: Sequence[Lesson] = LESSONS,
    *,
    informative_loss: float = 0,
    seed: int = 0,
    deadline: Deadline | None = None,
    **settings: Any,
) -> Iterator[Practice]:
    settings = {"rank": 4, "alpha": 8, "learning_rate": 1e-2, "stop_loss": 0, **settings}
    with practised(
        model,
        prefix,
        lessons,
        LearningConfig(**settings),
        informative_loss=informative_loss,
        seed=seed,
        deadline=deadline or Deadline(),
    ) as made:
        yield made


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
        with torch.no_grad():
            logits = network(torch.tensor([PREFIX]), use_cache=False).logits
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


def losses_of(
    model: LanguageModel, prefix: Prefix, lessons: Sequence[Lesson], mode: str = "activated"
) -> Tensor:
    with torch.no_grad():
        return lesson_losses(model, [prefix] * len(lessons), lessons, mode)


@pytest.mark.parametrize("mode", MODES)
class TestLosses:
    def test_a_padded_batch_is_each_lesson_alone(
        self, tiny: LanguageModel, prefix: Prefix, mode: str
    ) -> None:
        together = losses_of(tiny, prefix, LESSONS, mode)
        alone = torch.cat([losses_of(tiny, prefix, [lesson], mode) for lesson in LESSONS])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)

    def test_is_the_mean_over_answer_tokens_of_the_whole_sequence(
        self, tiny: LanguageModel, prefix: Prefix, mode: str
    ) -> None:
        for lesson, loss in zip(LESSONS, losses_of(tiny, prefix, LESSONS, mode), strict=True):
            ids = torch.tensor([[*PREFIX, *lesson.turn, *lesson.answer]])
            with torch.no_grad():
                logits = tiny.network(ids, use_cache=False).logits[0]
            told = logits[-len(lesson.answer) - 1 : -1]
            expected = torch.nn.functional.cross_entropy(told, torch.tensor(lesson.answer))
            assert float(loss) == pytest.approx(float(expected), abs=1e-5)

    def test_training_minimises_their_mean(
        self, tiny: LanguageModel, prefix: Prefix, mode: str
    ) -> None:
        expected = float(losses_of(tiny, prefix, LESSONS, mode).mean())
        with practising(tiny, prefix, epochs=6, mode=mode) as made:
            assert made.losses[0] == pytest.approx(expected, abs=1e-5)
            after = float(losses_of(tiny, prefix, LESSONS, mode).mean())
        assert list(made.losses) == sorted(made.losses, reverse=True)
        assert after < made.losses[-1] < 0.9 * made.losses[0]

    def test_a_lesson_repeated_is_learnt(
        self, tiny: LanguageModel, prefix: Prefix, mode: str
    ) -> None:
        with practising(tiny, prefix, LESSONS[:1], epochs=40, mode=mode) as made:
            learnt = float(losses_of(tiny, prefix, LESSONS[:1], mode))
        # the random output head is not adapted, so no adapter brings the loss to 0
        assert learnt < made.losses[0] - 1
        again = float(losses_of(tiny, prefix, LESSONS[:1], mode))
        assert again == pytest.approx(made.losses[0], abs=1e-5), "and forgotten"


class TestInformative:
    def test_known_lessons_are_left_out(self, tiny: LanguageModel, prefix: Prefix) -> None:
        """What remains trains as if the known lesson had never been there."""
        told = losses_of(tiny, prefix, LESSONS).tolist()
        least = told.index(min(told))
        between = (min(told) + sorted(told)[1]) / 2
        kept = [lesson for i, lesson in enumerate(LESSONS) if i != least]
        with practising(tiny, prefix, informative_loss=between, epochs=4) as made:
            assert made.known == [least]
        with practising(tiny, prefix, kept, epochs=4) as alone:
            assert alone.known == []
        assert made.losses == pytest.approx(alone.losses, abs=1e-4)
        with practising(tiny, prefix, epochs=4) as all_of_them:
            assert all_of_them.known == []
        assert abs(all_of_them.losses[-1] - made.losses[-1]) > 1e-2

    def test_nothing_to_learn(self, tiny: LanguageModel, prefix: Prefix) -> None:
        before = mix_up(tiny)
        with (
            pytest.raises(NoExamples, match="already answers"),
            practising(tiny, prefix, informative_loss=50),
        ):
            pytest.fail("the block is not entered")
        before.assert_still(tiny)

    def test_the_limit_itself_is_informative(self, tiny: LanguageModel, prefix: Prefix) -> None:
        with practising(tiny, prefix, informative_loss=0, epochs=1) as made:
            assert made.known == []


class TestStopping:
    def test_steps_are_the_most(self, tiny: LanguageModel, prefix: Prefix) -> None:
        for steps in (1, 3):
            with practising(tiny, prefix, epochs=steps) as made:
                assert len(made.losses) == steps

    def test_stops_when_the_loss_is_small(self, tiny: LanguageModel, prefix: Prefix) -> None:
        with practising(tiny, prefix, LESSONS[:1], epochs=60, stop_loss=4.6) as made:
            pass
        assert 2 < len(made.losses) < 60
        assert made.losses[-1] < 4.6 <= min(made.losses[:-1])

    @pytest.mark.parametrize("size", [None, 1])
    def test_a_small_loss_is_stepped_on_once(
        self, tiny: LanguageModel, prefix: Prefix, rates: list[float], size: int | None
    ) -> None:
        """An epoch with no loss above the limit is the last one, the first epoch too."""
        with practising(tiny, prefix, epochs=5, stop_loss=50, batch_size=size) as made:
            assert len(made.losses) == ((size and 3) or 1)
        assert len(rates) == len(made.losses)

    def test_no_time_left(self, tiny: LanguageModel, prefix: Prefix) -> None:
        before = mix_up(tiny)
        spent = Deadline(time.monotonic() - 1)
        with pytest.raises(BudgetSpent), practising(tiny, prefix, deadline=spent):
            pytest.fail("the block is not entered")
        before.assert_still(tiny)

    def test_time_runs_out_between_steps(self, tiny: LanguageModel, prefix: Prefix) -> None:
        before = mix_up(tiny)
        with (
            pytest.raises(BudgetSpent),
            practising(tiny, prefix, epochs=100_000, deadline=Deadline.after(0.2)),
        ):
            pytest.fail("the block is not entered")
        before.assert_still(tiny)

    @pytest.mark.parametrize("mode", MODES)
    def test_a_diverging_loss(self, tiny: LanguageModel, prefix: Prefix, mode: str) -> None:
        before = mix_up(tiny)
        with (
            pytest.raises(PracticeDiverged, match=r"is (nan|inf) at step [2-5]"),
            practising(tiny, prefix, epochs=5, learning_rate=1e30, mode=mode),
        ):
            pytest.fail("the block is not entered")
        before.assert_still(tiny)

    def test_a_weight_that_is_not_finite_after_the_last_step(
        self, tiny: LanguageModel, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No later loss tells of it, and nothing may be answered with it."""
        before = mix_up(tiny)
        real = torch.optim.AdamW.step

        def step(self: torch.optim.AdamW) -> None:
            real(self)
            self.param_groups[0]["params"][-1].data[0] = torch.nan

        monkeypatch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(PracticeDiverged), practising(tiny, prefix, epochs=1):
            pytest.fail("the block is not entered")
        before.assert_still(tiny)


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


FaultAt = Callable[[pytest.MonkeyPatch, type[BaseException]], None]


def at_the_second_loss(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    real, calls = Losses.of, []

    def fail(self: Losses, rows: Sequence[int]) -> Tensor:
        calls.append(rows)
        if len(calls) == 2:
            raise error
        return real(self, rows)

    monkeypatch.setattr(Losses, "of", fail)


def in_the_optimizer(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)


def in_the_backward_pass(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.Tensor, "backward", fail)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of each step that is taken."""
    taken: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW) -> None:
        taken.append(self.param_groups[0]["lr"])
        real(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return taken


def our_rates(steps: int, **settings: Any) -> list[float]:
    config = LearningConfig(learning_rate=1, **settings)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    scheduler = practice.schedule(optimizer, config, steps)
    taken = []
    for _ in range(steps):
        taken.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return taken


def trainers_rates(kind: str, steps: int, warmup: float, rate: float) -> list[float]:
    """What transformers' Trainer would do: `get_scheduler` with its own count of warm-up steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    rising = TrainingArguments.get_warmup_steps(
        cast(TrainingArguments, SimpleNamespace(warmup_steps=warmup)), steps
    )
    scheduler = get_scheduler(kind, optimizer, rising, steps)
    expected = []
    for _ in range(steps):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return expected


class TestSchedule:
    @pytest.mark.parametrize(
        ("lessons", "size", "epochs"),
        [
            (1, 1, 1),
            (1, 1, 2),
            (1, 1, 5),
            (2, 1, 5),
            (3, 2, 3),
            (3, None, 4),
            (3, 1, 12),
            (3, 9, 2),
        ],
    )
    @pytest.mark.parametrize(
        ("kind", "schedule", "warmup"),
        [
            ("cosine", "cosine", 0.03),
            ("cosine", "cosine", 0.5),
            ("cosine", "cosine", 0),
            ("constant_with_warmup", "constant", 0.3),
            ("constant", "constant", 0),
        ],
    )
    def test_is_that_of_transformers(
        self,
        tiny: LanguageModel,
        prefix: Prefix,
        rates: list[float],
        lessons: int,
        size: int | None,
        epochs: int,
        kind: str,
        schedule: str,
        warmup: float,
    ) -> None:
        with practising(
            tiny,
            prefix,
            LESSONS[:lessons],
            learning_rate=1e-4,
            schedule=schedule,
            warmup=warmup,
            epochs=epochs,
            batch_size=size,
        ) as made:
            pass
        planned = epochs * -(-lessons // (size or lessons))
        assert len(made.losses) == planned
        assert rates == pytest.approx(trainers_rates(kind, planned, warmup, 1e-4), abs=1e-18)

    def test_at_every_length(self) -> None:
        for steps in (1, 2, 3, 33, 34, 67, 100, 101):
            ours = our_rates(steps, schedule="cosine", warmup=0.03)
            assert ours == pytest.approx(trainers_rates("cosine", steps, 0.03, 1), abs=1e-12)

    def test_all_of_it_may_be_warm_up(self) -> None:
        assert our_rates(4, schedule="cosine", warmup=1) == [0, 0.25, 0.5, 0.75]

    def test_is_constant_by_default(
        self, tiny: LanguageModel, prefix: Prefix, rates: list[float]
    ) -> None:
        with practising(tiny, prefix, epochs=3, learning_rate=1e-3):
            pass
        assert rates == [1e-3] * 3

    def test_a_step_not_taken_does_not_count(
        self, tiny: LanguageModel, prefix: Prefix, rates: list[float]
    ) -> None:
        """Two of three lessons are known: the rate falls as planned, over the steps taken."""
        told = sorted(losses_of(tiny, prefix, LESSONS).tolist())
        with practising(
            tiny,
            prefix,
            informative_loss=(told[1] + told[2]) / 2,
            epochs=2,
            batch_size=1,
            schedule="cosine",
            learning_rate=1e-5,  # so small that no lesson becomes known through another
        ) as made:
            assert len(made.known) == 2
        assert rates == pytest.approx(trainers_rates("cosine", 6, 0, 1e-5)[:2], abs=1e-18)

    def test_a_first_step_of_rate_0_changes_nothing(
        self, tiny: LanguageModel, prefix: Prefix
    ) -> None:
        """As in transformers: of five steps of the paper's recipe four learn."""
        with practising(tiny, prefix, LESSONS[:1], epochs=3, warmup=0.03) as made:
            assert made.losses[1] == made.losses[0]
            assert made.losses[2] < made.losses[1]


class TestBatches:
    def sizes(self, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
        real, seen = Losses.of, list[list[int]]()

        def watch(self: Losses, rows: Sequence[int]) -> Tensor:
            seen.append(list(rows))
            return real(self, rows)

        monkeypatch.setattr(Losses, "of", watch)
        return seen

    @pytest.mark.parametrize(
        ("size", "expected"),
        [(None, [[0, 1, 2]]), (1, [[0], [1], [2]]), (2, [[0, 1], [2]]), (3, [[0, 1, 2]])],
    )
    def test_every_epoch_meets_every_lesson_once(
        self,
        tiny: LanguageModel,
        prefix: Prefix,
        monkeypatch: pytest.MonkeyPatch,
        size: int | None,
        expected: list[list[int]],
    ) -> None:
        seen = self.sizes(monkeypatch)
        with practising(tiny, prefix, epochs=2, batch_size=size) as made:
            pass
        assert seen == expected * 2
        assert len(made.losses) == len(seen)

    def test_larger_than_there_are_lessons_is_all(
        self, tiny: LanguageModel, prefix: Prefix
    ) -> None:
        with practising(tiny, prefix, batch_size=99) as large:
            pass
        with practising(tiny, prefix) as whole:
            pass
        assert large.losses == whole.losses

    def test_known_lessons_are_not_met_again(
        self, tiny: LanguageModel, prefix: Prefix, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = losses_of(tiny, prefix, LESSONS).tolist()
        least = told.index(min(told))
        seen = self.sizes(monkeypatch)
        with practising(
            tiny,
            prefix,
            informative_loss=(min(told) + sorted(told)[1]) / 2,
            epochs=3,
            batch_size=1,
            learning_rate=1e-5,
        ) as made:
            assert made.known == [least]
        rest = [[i] for i in range(3) if i != least]
        assert seen == [[0], [1], [2], *rest, *rest]
        assert len(made.losses) == 6

    def test_practice_goes_on_as_long_as_one_batch_is_not_learnt(
        self, tiny: LanguageModel, prefix: Prefix, rates: list[float]
    ) -> None:
        """And all batches of such an epoch take their step."""
        told = sorted(losses_of(tiny, prefix, LESSONS).tolist())
        with practising(
            tiny,
            prefix,
            epochs=2,
            batch_size=1,
            stop_loss=(told[1] + told[2]) / 2,
            learning_rate=1e-5,
        ) as made:
            pass
        assert len(made.losses) == len(rates) == 6

    def test_a_loss_that_is_no_number_is_not_known(
        self, tiny: LanguageModel, prefix: Prefix
    ) -> None:
        """Else a broken adapter, whose every later loss is NaN, would pass for practice."""
        with (
            pytest.raises(PracticeDiverged, match="nan at step 2"),
            practising(
                tiny, prefix, informative_loss=0.02, epochs=1, batch_size=1, learning_rate=1e30
            ),
        ):
            pytest.fail("the block is not entered")


@pytest.mark.parametrize("mode", MODES)
class TestReset:
    def test_after_success(self, tiny: LanguageModel, prefix: Prefix, mode: str) -> None:
        before = mix_up(tiny)
        with practising(tiny, prefix, mode=mode):
            with torch.no_grad():
                inside = tiny.network(torch.tensor([PREFIX]), use_cache=False).logits
            assert not any(parameter.requires_grad for parameter in tiny.network.parameters())
        assert not torch.equal(inside, before.logits), "there was something to reset"
        before.assert_still(tiny)

    @pytest.mark.parametrize("error", [Fault, KeyboardInterrupt])
    def test_after_an_error_in_the_block(
        self, tiny: LanguageModel, prefix: Prefix, mode: str, error: type[BaseException]
    ) -> None:
        before = mix_up(tiny)
        with pytest.raises(error), practising(tiny, prefix, mode=mode):
            raise error
        before.assert_still(tiny)

    @pytest.mark.parametrize("error", [Fault, KeyboardInterrupt])
    @pytest.mark.parametrize("fault", [at_the_second_loss, in_the_optimizer, in_the_backward_pass])
    def test_after_an_error_in_training(
        self,
        tiny: LanguageModel,
        prefix: Prefix,
        mode: str,
        fault: FaultAt,
        error: type[BaseException],
    ) -> None:
        before = mix_up(tiny)
        with pytest.MonkeyPatch.context() as patches:
            fault(patches, error)
            with pytest.raises(error), practising(tiny, prefix, mode=mode):
                pytest.fail("the block is not entered")
        before.assert_still(tiny)

    def test_after_ctrl_c_in_training(self, tiny: LanguageModel, prefix: Prefix, mode: str) -> None:
        """A real interrupt, at whatever instruction it meets."""
        before = mix_up(tiny)
        with (
            ctrl_c_after(0.3),
            pytest.raises(KeyboardInterrupt),
            practising(tiny, prefix, mode=mode, epochs=5_000),
        ):
            pytest.fail("the block is not entered")
        before.assert_still(tiny)

    def test_practice_again_is_the_same(
        self, tiny: LanguageModel, prefix: Prefix, mode: str
    ) -> None:
        """Nothing of the first practice is in the second; another seed is another adapter."""

        def learnt(seed: int) -> tuple[list[float], Tensor]:
            with practised_together(
                tiny,
                [Study(prefix, LESSONS)],
                LearningConfig(rank=4, learning_rate=1e-2, stop_loss=0, mode=mode),
                informative_loss=0,
                seed=seed,
                deadline=Deadline(),
            ) as (bank, (made,)):
                b = torch.cat([b.detach().flatten() for b in bank.b.values()])
            return made.losses, b

        losses, weights = learnt(0)
        again, weights_again = learnt(0)
        assert losses == again
        assert torch.equal(weights, weights_again)
        assert not torch.equal(weights, learnt(1)[1])


class TestPrefixIsKept:
    @pytest.mark.parametrize("mode", MODES)
    def test_training_never_changes_it(
        self, tiny: LanguageModel, prefix: Prefix, mode: str
    ) -> None:
        before = [(layer.keys.clone(), layer.values.clone()) for layer in prefix.cache.layers]
        with practising(tiny, prefix, mode=mode):
            tiny.forward([[1, 2], [3]], prefix.fork(2), None, keep=1)
        assert prefix.cache.get_seq_length() == len(PREFIX)
        for layer, (keys, values) in zip(prefix.cache.layers, before, strict=True):
            assert torch.equal(layer.keys, keys)
            assert torch.equal(layer.values, values)
            assert layer.keys.grad_fn is None
