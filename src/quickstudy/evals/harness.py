"""quickstudy as a model of lm-evaluation-harness (extra `lm-eval`).

    python -m quickstudy.evals.harness run --model quickstudy --tasks gsm8k --limit 20 \\
        --model_args model=smollm2,method=tt-si,learning.rank=8

This is the harness's own command with one model more. `--model_args` takes `model`, any setting of
quickstudy by its dotted name, and `episodes=FILE`, where each answer's whole record goes as a line.
Answers are greedy. Only tasks that ask for text (`generate_until`) can be run: what practice does
to a request's answer is no score of a text that somebody else has written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from quickstudy import jsonlines
from quickstudy.config import Config
from quickstudy.errors import ConfigError
from quickstudy.improve import Improver
from quickstudy.model import LanguageModel
from quickstudy.types import Request

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as missing:
    raise ConfigError(
        "lm-evaluation-harness is not installed; type `pip install 'quickstudy[lm-eval]'`"
    ) from missing

_TEXT_ONLY = (
    "quickstudy gives answers, not scores of given texts; choose tasks of output type"
    " generate_until, as gsm8k is"
)


@register_model("quickstudy")
class QuickstudyLM(LM):  # type: ignore[misc] # the harness may be missing
    """One conversation a request; few-shot examples are part of the text, as the harness has it."""

    def __init__(
        self,
        model: str | LanguageModel = "auto",
        episodes: str | None = None,
        device: str | None = None,
        batch_size: object = None,
        max_batch_size: object = None,
        **settings: Any,
    ) -> None:
        """Raises ConfigError or ModelError. `batch_size` of the harness is not used."""
        super().__init__()
        method = settings.pop("method", None)
        if device is not None:
            settings.setdefault("model.device", device)
        overrides = [f"{name}={value}" for name, value in settings.items()]
        config = Config.load(overrides=overrides, method=method)
        if isinstance(model, LanguageModel):
            self.improver = Improver(model, config)
        else:
            self.improver = Improver.load(model, config)
        self.episodes = Path(episodes) if episodes else None

    @property
    def tokenizer_name(self) -> str:
        return self.improver.model.name

    def chat_template(self, chat_template: bool | str = False) -> str:
        return str(self.improver.model.tokenizer.chat_template)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as JSON, which `generate_until` reads: the template comes later."""
        return json.dumps(chat_history)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """An answer each, cut before the first of the task's stop texts."""
        texts = []
        for number, instance in enumerate(requests):
            context, generation = instance.args
            texts.append(self._answer(str(context), dict(generation), number))
            self.cache_hook.add_partial("generate_until", instance.args, texts[-1])
        return texts

    def _answer(self, context: str, generation: Mapping[str, Any], number: int) -> str:
        if generation.get("do_sample") or generation.get("temperature"):
            raise ConfigError(
                "quickstudy answers greedily; add --gen_kwargs do_sample=false,temperature=0"
            )
        improver = self._limited(generation.get("max_gen_toks"))
        request = Request.parse(_messages(context), id=number)
        answer = improver.answer_request(request)
        if self.episodes:
            jsonlines.append(self.episodes, answer.to_json())
        until = generation.get("until") or []
        text = answer.content
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop, 1)[0] if stop else text
        return text

    def _limited(self, most: int | None) -> Improver:
        """The improver for answers of so many tokens, as the task wants them."""
        config = self.improver.config
        if most is None or most == config.decoding.max_new_tokens:
            return self.improver
        decoding = config.decoding.model_copy(update={"max_new_tokens": most})
        limited = config.model_copy(update={"decoding": decoding})
        improver = Improver(self.improver.model, limited, self.improver.teacher)
        improver.decoder = self.improver.decoder
        self.improver = improver
        return improver

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        raise ConfigError(_TEXT_ONLY)

    def loglikelihood_rolling(self, requests: list[Instance]) -> NoReturn:
        raise ConfigError(_TEXT_ONLY)


def _messages(context: str) -> Any:
    """The conversation that `apply_chat_template` wrote down; else the text is all there is."""
    try:
        read = json.loads(context)
    except (ValueError, RecursionError):
        return context
    turns = isinstance(read, list) and read and all(isinstance(m, dict) for m in read)
    return read if turns and all("role" in message for message in read) else context


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
