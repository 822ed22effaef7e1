"""Every method that is compared, by name: what it does, its settings, how it is made.

A method is the model with one way to spend a request's time. `+repair` after a name applies the
verifier's rules (`quickstudy.repair`) to its answers; `repair` is short for `base+repair`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quickstudy.config import Config
from quickstudy.errors import ConfigError
from quickstudy.methods.cycle import (
    CertainOnly,
    Cycle,
    NoReset,
    NoSynthesis,
    NoVerification,
    OtherRequest,
)
from quickstudy.methods.demonstrations import InContext
from quickstudy.methods.interface import Item, Method, Outcome, Workbench
from quickstudy.methods.reconsidering import Reconsider
from quickstudy.methods.supervised import Supervised
from quickstudy.methods.voting import Majority

REPAIR = "+repair"


@dataclass(frozen=True)
class Recipe:
    """A method by name.

    `cycle` is the Config's own method that it is or varies. `defaults` are settings that the
    user's go over, `fixed` those that make it what it is. `free`: it needs no training.
    """

    does: str
    make: Callable[[Workbench, Config], Method]
    cycle: str = "tt-si"
    defaults: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    free: bool = False


def _sft(bench: Workbench, config: Config) -> Method:
    return Supervised(bench, config, bench.training(), "sft")


def _sft_single(bench: Workbench, config: Config) -> Method:
    rows = [row for row in bench.training() if len(row.gold) == 1]
    return Supervised(bench, config, rows, "sft-single")


def _oracle(bench: Workbench, config: Config) -> Method:
    return Supervised(bench, config, bench.items, "oracle")


# many rows in shuffled batches, where practice has two examples in one; all layers, and the rate
# that goes with them
_MANY_ROWS = (
    "learning.upper_layers=1",
    "learning.learning_rate=1e-4",
    "learning.epochs=4",
    "learning.batch_size=8",
    "learning.schedule=cosine",
    "learning.warmup=0.03",
)
_NO_GATE = ("awareness.threshold=1.01",)
RECIPES: Mapping[str, Recipe] = {
    "base": Recipe("the greedy answer under the schema", Cycle, "base", free=True),
    "base-unconstrained": Recipe(
        "the greedy answer, nothing holds it to the schema",
        Cycle,
        "base",
        fixed=("decoding.constrained=false",),
        free=True,
    ),
    "repair": Recipe("base under the verifier's rules", Cycle, "base", free=True),
    "majority": Recipe(
        "unsure answers by vote of as many sampled ones as the seconds of tt-si buy",
        Majority,
        free=True,
    ),
    "reconsider": Recipe(
        "what unsure answers give way to (another tool, less, a question); nothing is practised",
        Reconsider,
        fixed=("awareness.reconsider=true",),
        free=True,
    ),
    "icl": Recipe(
        "the nearest training rows told before every request",
        InContext,
        "tt-icl",
        fixed=(*_NO_GATE, "awareness.reconsider=false"),
        free=True,
    ),
    "sft": Recipe("one adapter trained on all training rows", _sft, "base", _MANY_ROWS),
    "sft-single": Recipe(
        "one adapter trained on the training rows with a single call",
        _sft_single,
        "base",
        _MANY_ROWS,
    ),
    "tt-si": Recipe("unsure requests: practice written by the model itself", Cycle),
    "tt-si-paper": Recipe("the recipe of arXiv 2510.07841", Cycle, "tt-si-paper"),
    "tt-d": Recipe("unsure requests: practice written by a teacher", Cycle, "tt-d"),
    "tt-icl": Recipe("the practice of tt-si told in the context", Cycle, "tt-icl", free=True),
    "other-request": Recipe("tt-si on practice for another random request", OtherRequest),
    "certain-only": Recipe("tt-si with the gate turned round", CertainOnly),
    "adapt-all": Recipe("tt-si without a gate", Cycle, fixed=_NO_GATE),
    "no-synthesis": Recipe("tt-si on the request itself, the draft as its answer", NoSynthesis),
    "no-verification": Recipe("tt-si on what was written, right or not", NoVerification),
    "no-reset": Recipe("tt-si with one adapter that goes on through all requests", NoReset),
    "oracle": Recipe(
        "one adapter trained on the test rows' answers: the ceiling", _oracle, "base", _MANY_ROWS
    ),
}


@dataclass(frozen=True)
class Named:
    """A method as it was asked for."""

    name: str
    recipe: Recipe
    repaired: bool

    @property
    def parent(self) -> str:
        """The method whose answers are repaired; itself where none are."""
        if self.name == "repair":
            return "base"
        return self.name.removesuffix(REPAIR)

    def config(self, file: Path | None, overrides: Sequence[str], seed: int) -> Config:
        """Its settings: the recipe's, under what the user says. Raises ConfigError."""
        # a seed that was set goes over the run's, so that one choice of rows can have several
        given = [f"seed={seed}", *self.recipe.defaults, *overrides, *self.recipe.fixed]
        return Config.load(file, given, method=self.recipe.cycle)


def parse(name: str) -> Named:
    """Raises ConfigError: names the nearest method."""
    if name == f"base{REPAIR}":
        name = "repair"
    plain = name.removesuffix(REPAIR)
    if plain == "repair" != name:
        raise ConfigError(f"method {name!r}: repair is repaired already; type repair")
    recipe = RECIPES.get(plain)
    if recipe is None:
        near = difflib.get_close_matches(plain, RECIPES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"there is no method {plain!r}{hint} (methods: {', '.join(RECIPES)}; each also with"
            f" {REPAIR})"
        )
    return Named(name, recipe, name == "repair" or name.endswith(REPAIR))


__all__ = [
    "RECIPES",
    "REPAIR",
    "Item",
    "Method",
    "Named",
    "Outcome",
    "Recipe",
    "Workbench",
    "parse",
]
