"""Every architecture, from every source: the same numbers, cached, padded and adapted alike."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from families import ARCHITECTURES, FAMILIES, network, save_folder, save_gguf, save_in_hub_cache
from torch import Tensor

from quickstudy.config import ModelConfig
from quickstudy.decoding import Ask, Deadline, Decoder
from quickstudy.learning.lora import AdapterBank
from quickstudy.model import LanguageModel, Prefix, start
from quickstudy.types import Request

pytestmark = pytest.mark.parametrize("architecture", ARCHITECTURES)
IDS = [int(i) for i in torch.randint(0, 256, (60,), generator=torch.Generator().manual_seed(5))]


@cache
def model_of(architecture: str) -> LanguageModel:
    tokenizer = FAMILIES[architecture].tokenizer()
    return LanguageModel(network(architecture, tokenizer), tokenizer, architecture)


def whole(made: Any, ids: list[int]) -> Tensor:
    """Logits of one row on its own, without a cache: (tokens, vocabulary)."""
    with torch.no_grad():
        return made(torch.tensor([ids]), use_cache=False).logits[0]


def ids_of(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count,), generator=generator).tolist()


def prefix_of(model: LanguageModel, ids: list[int]) -> Prefix:
    cache = model.empty_prefix().cache
    with torch.no_grad():
        model.network(torch.tensor([ids]), past_key_values=cache, logits_to_keep=1)
    return Prefix(tuple(ids), cache)


class TestSources:
    """The random weights make every layer count: what is read wrongly shows in the logits."""

    def check(self, model: LanguageModel, made: Any, architecture: str) -> None:
        torch.testing.assert_close(whole(model.network, IDS), whole(made, IDS), rtol=0, atol=2e-4)
        own = FAMILIES[architecture].tokenizer()
        for text in (*FAMILIES[architecture].control, *FAMILIES[architecture].plain, "the é\n"):
            assert model.encode(text) == own.encode(text, add_special_tokens=False)
            assert model.decode(model.encode(text)) == text
        context = model.prefill(Request.parse("Hello"))
        assert [*context.prefix.ids, *context.turn] == LanguageModel(made, own, "own").render(
            context.request.messages, ()
        )
        assert model.end_of_turn in model.eos_ids

    def test_folder(self, architecture: str, tmp_path: Path) -> None:
        made = save_folder(tmp_path, architecture)
        model = LanguageModel.load(str(tmp_path), ModelConfig(dtype="float32"))
        self.check(model, made, architecture)

    def test_gguf(self, architecture: str, tmp_path: Path) -> None:
        made = save_gguf(tmp_path / "tiny.gguf", architecture)
        config = ModelConfig(dtype="float32", cache_dir=tmp_path / "cache")
        self.check(LanguageModel.load(str(tmp_path / "tiny.gguf"), config), made, architecture)

    def test_hub_id(
        self, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = save_in_hub_cache(tmp_path, f"acme/tiny-{architecture}", architecture)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        config = ModelConfig(dtype="float32", cache_dir=tmp_path / "cache")
        model = LanguageModel.load(f"acme/tiny-{architecture}", config)
        self.check(model, made, architecture)


class TestPasses:
    """The prefix is longer than gemma3's window of 16, the rows shorter and longer."""

    ROWS = (31, 5, 1, 18)

    @pytest.mark.parametrize("length", [70, 9, 0])
    def test_cached_and_padded_rows_are_each_row_alone(
        self, architecture: str, length: int
    ) -> None:
        model = model_of(architecture)
        before = ids_of(length, 0)
        prefix = prefix_of(model, before) if before else model.empty_prefix()
        feeds = [ids_of(count, seed) for seed, count in enumerate(self.ROWS)]
        told = [before + feed for feed in feeds]
        cache = prefix.fork(len(feeds))
        with torch.no_grad():
            logits, seen = model.forward(feeds, cache, None, keep=max(self.ROWS))
            for row, feed in enumerate(feeds):
                want = whole(model.network, told[row])[-len(feed) :]
                torch.testing.assert_close(logits[row, -len(feed) :], want, rtol=0, atol=2e-5)
            for feeds in ([ids_of(4, 9), [], ids_of(20, 8), ids_of(1, 7)], [[3]] * 4):
                logits, seen = model.forward(feeds, cache, seen, keep=1)
                for row, feed in enumerate(feeds):
                    told[row] += feed
                    if feed:
                        want = whole(model.network, told[row])[-1]
                        torch.testing.assert_close(logits[row, -1], want, rtol=0, atol=2e-5)

    def test_one_row_goes_on_from_the_prefix(self, architecture: str) -> None:
        model = model_of(architecture)
        before, new = ids_of(70, 0), ids_of(30, 1)
        with torch.no_grad():
            logits, _ = model.forward([new], prefix_of(model, before).fork(), None, keep=30)
        want = whole(model.network, before + new)[-30:]
        torch.testing.assert_close(logits[0], want, rtol=0, atol=2e-5)

    def test_decoding_leaves_the_prefix_as_it_is(self, architecture: str) -> None:
        model = model_of(architecture)
        context = model.prefill(Request.parse("Light in the attic, and in the cellar, please!"))
        prefix = prefix_of(model, ids_of(40, 2))
        for kept in (context.prefix, prefix):
            before = [(layer.keys.clone(), layer.values.clone()) for layer in kept.cache.layers]
            Decoder(model).decode(
                kept,
                [Ask(context.turn), Ask(context.turn[-5:])],
                max_new_tokens=20,
                deadline=Deadline(),
            )
            assert kept.cache.get_seq_length() == len(kept.ids)
            for layer, (keys, values) in zip(kept.cache.layers, before, strict=True):
                assert torch.equal(layer.keys, keys)
                assert torch.equal(layer.values, values)


class TestAdapter:
    def test_attached_it_counts_and_detached_nothing_is_left(self, architecture: str) -> None:
        model = model_of(architecture)
        prefix, feeds = prefix_of(model, ids_of(40, 0)), [ids_of(20, 1), ids_of(7, 2)]

        def logits() -> Tensor:
            with torch.no_grad():
                return model.forward(feeds, prefix.fork(2), None, keep=5)[0]

        before = logits()
        adapter = AdapterBank(
            model.network,
            rank=4,
            alpha=8,
            targets="all-linear",
            generators=[torch.Generator().manual_seed(0)],
        )
        with adapter.attached():
            assert torch.equal(logits(), before), "B is zero"
            told, mask = model.answer_log_probs(start([prefix] * 2), feeds, [[5, 6], [7]])
            (-(told * mask).sum()).backward()
            for b in adapter.b.values():
                assert b.grad is not None
                assert bool(b.grad.isfinite().all())
                assert float(b.grad.abs().max()) > 0, "every layer learns"
                b.data -= b.grad
            assert not torch.equal(logits(), before)
        assert torch.equal(logits(), before)
