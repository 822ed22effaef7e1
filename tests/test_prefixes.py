"""Prefixes are kept for requests to come, and joined where requests are answered together."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, ids_of, network, prefix_of
from torch import Tensor

from quickstudy.config import Config
from quickstudy.improve import Improver
from quickstudy.learning.lora import AdapterBank
from quickstudy.model import LanguageModel, Prefix, PrefixCache, start
from quickstudy.types import Request


def tools(name: str) -> list[dict[str, object]]:
    return [{"name": name, "parameters": {"type": "object", "properties": {}}}]


def keeping(model: LanguageModel, tokens: int = 8192) -> LanguageModel:
    return LanguageModel(model.network, model.tokenizer, "tiny", tokens)


class TestCache:
    def prefix(self, *ids: int) -> Prefix:
        return Prefix(ids, None)  # type: ignore[arg-type]

    def test_the_least_recently_used_goes(self) -> None:
        kept = PrefixCache(6)
        one, two, three = self.prefix(1, 1), self.prefix(2, 2), self.prefix(3, 3)
        for prefix in (one, two, three):
            kept.keep(prefix)
        assert kept.get((1, 1)) is one
        kept.keep(self.prefix(4, 4))
        assert kept.get((2, 2)) is None
        assert kept.get((1, 1)) is one
        assert kept.get((3, 3)) is three

    def test_tokens_are_the_bound(self) -> None:
        kept = PrefixCache(6)
        kept.keep(self.prefix(1, 1, 1))
        kept.keep(self.prefix(2, 2, 2))
        assert kept.get((1, 1, 1))
        kept.keep(self.prefix(3, 3, 3, 3, 3))
        assert kept.get((1, 1, 1)) is None
        assert kept.get((2, 2, 2)) is None
        assert kept.get((3, 3, 3, 3, 3))

    def test_one_that_never_fits_pushes_none_out(self) -> None:
        kept = PrefixCache(6)
        kept.keep(self.prefix(1, 1))
        kept.keep(self.prefix(*range(7)))
        assert kept.get((1, 1))
        assert kept.get(tuple(range(7))) is None

    def test_none(self) -> None:
        kept = PrefixCache(0)
        kept.keep(self.prefix(1))
        assert kept.get((1,)) is None


class TestPrefill:
    def test_the_same_tools_are_read_once(self, tiny: LanguageModel) -> None:
        model = keeping(tiny)
        first = model.prefill(Request.parse("Light!", tools("light")))
        assert model.prefill(Request.parse("Lamp?", tools("light"))).prefix is first.prefix
        assert model.prefill(Request.parse("Light!", tools("other"))).prefix is not first.prefix

    def test_nothing_is_kept_where_none_is_asked(self, tiny: LanguageModel) -> None:
        first = tiny.prefill(Request.parse("Light!", tools("light")))
        assert tiny.prefill(Request.parse("Light!", tools("light"))).prefix is not first.prefix

    def test_under_an_adapter_neither_taken_nor_kept(self, tiny: LanguageModel) -> None:
        model = keeping(tiny)
        asked = Request.parse("Light!", tools("light"))
        bank = AdapterBank(
            model.network,
            rank=2,
            alpha=4,
            targets="attention",
            generators=[torch.Generator()],
        )
        with bank.attached():
            alone = model.prefill(asked)
        first = model.prefill(asked)
        assert first.prefix is not alone.prefix, "it was not kept"
        with bank.attached():
            assert model.prefill(asked).prefix is not first.prefix
        assert model.prefill(asked).prefix is first.prefix

    @pytest.mark.parametrize("mode", ["activated", "full"])
    def test_answers_and_logits_are_those_of_a_first_request(
        self, tiny: LanguageModel, mode: str
    ) -> None:
        def told(improver: Improver) -> object:
            answer = improver.answer("Light to 40", tools("light")).to_json()
            del answer["episode"]["seconds"]
            return answer

        def base(model: LanguageModel) -> Tensor:
            context = model.prefill(Request.parse("Light to 40", tools("light")))
            with torch.no_grad():
                return model.forward([context.turn], context.prefix.fork(), None, keep=3)[0]

        config = Config(
            awareness={"threshold": 1.01},  # type: ignore[arg-type]
            augmentation={"informative_loss": 0},  # type: ignore[arg-type]
            learning={"mode": mode, "epochs": 2, "stop_loss": 0},  # type: ignore[arg-type]
            decoding={"max_new_tokens": 24},  # type: ignore[arg-type]
        )
        model = keeping(tiny)
        expected, logits = told(Improver(tiny, config)), base(tiny)
        improver = Improver(model, config)
        assert [told(improver) for _ in range(3)] == [expected] * 3
        assert torch.equal(base(model), logits)
        (kept,) = [p for p in model.prefixes._kept.values() if "light" in model.decode(p.ids)]
        fresh = tiny.prefill(Request.parse("Light to 40", tools("light"))).prefix
        assert kept.ids == fresh.ids
        for layer, other in zip(kept.cache.layers, fresh.cache.layers, strict=True):
            assert torch.equal(layer.keys, other.keys)
            assert torch.equal(layer.values, other.values)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma3"])
class TestJoined:
    """A row of a batch sees its own prefix and nothing of the others'. float32."""

    def model(self, architecture: str) -> LanguageModel:
        tokenizer = FAMILIES[architecture].tokenizer()
        return LanguageModel(network(architecture, tokenizer), tokenizer, architecture)

    @pytest.mark.parametrize(
        "lengths", [(40, 9, 23), (9, 40), (20, 20), (0, 12), (12, 0, 5), (0, 0)]
    )
    def test_logits_are_those_of_each_alone(
        self, architecture: str, lengths: tuple[int, ...]
    ) -> None:
        model = self.model(architecture)
        prefixes = [prefix_of(model, length) for length in lengths]
        before = [[layer.keys for layer in prefix.cache.layers] for prefix in prefixes]
        begin = start(prefixes)
        cache, seen = begin.fork(), begin.seen
        alone = [(prefix.fork(), None) for prefix in prefixes]
        with torch.no_grad():
            for step in range(3):
                feeds = [ids_of(3 + 7 * row * step, row + step) for row in range(len(lengths))]
                logits, seen = model.forward(feeds, cache, seen, keep=2)
                for row, (own, known) in enumerate(alone):
                    want, now = model.forward([feeds[row]], own, known, keep=2)
                    alone[row] = (own, now)  # type: ignore[assignment]
                    torch.testing.assert_close(logits[row], want[0], rtol=0, atol=2e-5)
        for prefix, keys in zip(prefixes, before, strict=True):
            assert prefix.cache.get_seq_length() == len(prefix.ids)
            for layer, key in zip(prefix.cache.layers, keys, strict=True):
                assert layer.keys is key

    def test_some_of_the_rows(self, architecture: str) -> None:
        model = self.model(architecture)
        prefixes = [prefix_of(model, length) for length in (40, 9, 23)]
        some = start(prefixes).select([2, 1])
        assert [len(prefix.ids) for prefix in some.prefixes] == [23, 9]
        feeds = [ids_of(4, 1), ids_of(6, 2)]
        with torch.no_grad():
            logits, _ = model.forward(feeds, some.fork(), some.seen, keep=1)
            for row, prefix in enumerate((prefixes[2], prefixes[1])):
                want, _ = model.forward([feeds[row]], prefix.fork(), None, keep=1)
                torch.testing.assert_close(logits[row], want[0], rtol=0, atol=2e-5)
