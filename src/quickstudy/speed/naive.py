"""The way it is done today, to compare with: PEFT, transformers' Trainer, `generate`, unload.

Nothing of ours is in the way it computes: the network is a copy of structure without our hooks
(the weights are the same tensors), every pass runs over the whole sequence, and nothing is kept
between draft, synthesis, training and answer.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import peft
import torch
from transformers import GenerationConfig, PrinterCallback, Trainer, TrainingArguments, logging

from quickstudy.augmentation.question_answer import read_call
from quickstudy.config import Config
from quickstudy.learning.practice import Lesson
from quickstudy.model import LanguageModel
from quickstudy.prompts import dialogue
from quickstudy.speed.bare import bare
from quickstudy.speed.batches import IGNORED, collate, passes
from quickstudy.speed.measure import synchronise
from quickstudy.types import Request

WRITTEN = 192  # new tokens of a practice example at most, as ours

Train = Callable[[Any, Sequence[Lesson]], None]


class Naive:
    """One model, practised and answered with in the usual way."""

    def __init__(self, model: LanguageModel, config: Config) -> None:
        self.model, self.config = model, config
        self.network = bare(model.network)
        self._pad = model.tokenizer.pad_token_id or 0

    def practise(self, train: Train, sequences: Sequence[Lesson], *, wide: bool) -> None:
        """A fresh adapter, trained and thrown away; each lesson's turn is the whole prompt."""
        with self.adapted(wide=wide) as network:
            train(network, sequences)

    @contextmanager
    def adapted(self, *, wide: bool) -> Iterator[Any]:
        """The network under a fresh adapter, in float32 as PEFT has it unless told otherwise.

        Args:
            wide: PEFT's default; else the adapter is of the network's own type, which is faster.
        """
        learning = self.config.learning
        settings = peft.LoraConfig(
            r=learning.rank,
            lora_alpha=learning.alpha,
            target_modules="all-linear"
            if learning.targets == "all-linear"
            else ["q_proj", "k_proj", "v_proj", "o_proj"],
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            # PEFT asks transformers for what it calls by another name now
            network = peft.get_peft_model(self.network, settings, autocast_adapter_dtype=wide)
        try:
            yield network
        finally:
            self.network = network.unload().eval()

    def with_trainer(self, network: Any, sequences: Sequence[Lesson]) -> None:
        """The Trainer with its defaults, which computes logits for every position."""
        size, parts = passes(sequences)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=self.config.learning.epochs,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=parts,
                learning_rate=self.config.learning.learning_rate,
                lr_scheduler_type="constant",
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=self.model.device.type == "cpu",
                dataloader_pin_memory=False,
            )
            trainer = Trainer(
                model=network,
                args=arguments,
                train_dataset=list(sequences),
                data_collator=partial(collate, pad=self._pad),
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()

    def by_hand(self, network: Any, sequences: Sequence[Lesson]) -> None:
        """A loop as one writes it with care: logits from the first answer token on only."""
        size, parts = passes(sequences)
        batches = [
            {name: tensor.to(self.model.device) for name, tensor in batch.items()}
            for batch in (
                collate(sequences[start : start + size], self._pad)
                for start in range(0, len(sequences), size)
            )
        ]
        trained = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.config.learning.learning_rate)
        network.train()
        for _ in range(self.config.learning.epochs):
            for batch in batches:
                told = batch["labels"] != IGNORED
                # from the position that tells the first answer token
                kept = told.shape[1] - int(told.any(0).nonzero()[0]) + 1
                labels = batch["labels"][:, -kept:]
                inputs = {**batch, "labels": labels, "logits_to_keep": kept}
                (network(**inputs).loss / parts).backward()
            optimizer.step()
            optimizer.zero_grad()

    def generate(
        self,
        network: Any,
        ids: Sequence[int],
        *,
        most: int,
        least: int = 0,
        cache: Any = None,
    ) -> list[int]:
        """What the framework's `generate` continues a prompt with, `least` to `most` tokens.

        Args:
            cache: keys and values of the prompt's beginning, if they are there already.
        """
        settings = {"min_new_tokens": least, "do_sample": False}
        return self._generated(network, ids, most, settings, cache)[0]

    def sample(self, network: Any, ids: Sequence[int], *, most: int, count: int) -> list[list[int]]:
        """`count` sampled continuations of a prompt, in one batch."""
        temperature = self.config.augmentation.temperature
        settings = {"do_sample": True, "temperature": temperature, "num_return_sequences": count}
        return self._generated(network, ids, most, settings)

    def _generated(
        self,
        network: Any,
        ids: Sequence[int],
        most: int,
        more: Mapping[str, Any],
        cache: Any = None,
    ) -> list[list[int]]:
        settings = GenerationConfig(
            max_new_tokens=most,
            eos_token_id=sorted(self.model.eos_ids),
            pad_token_id=self._pad,
            **more,
        )
        prompt = torch.tensor([list(ids)], device=self.model.device)
        with torch.no_grad():
            made = network.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=settings,
                past_key_values=cache,
            )
        return [[int(token) for token in row[len(ids) :]] for row in made]

    def pipeline(self, request: Request, sequences: Sequence[Lesson]) -> dict[str, Any]:
        """A whole unsure request: draft, synthesis, training, answer, unload.

        Synthesis asks for question and answer at once, as the paper does, for all examples in
        one batch; training is on the given sequences, so that no badly written example saves
        time, and takes every step. Draft and answer are without a grammar.

        Returns:
            Seconds by stage, and the tokens that were decoded in each.
        """
        seconds: dict[str, float] = {}
        tokens: dict[str, int] = {}
        ids = self.model.render(request.messages, request.tools)
        limit = self.config.decoding.max_new_tokens
        with self._stage("draft", seconds):
            tokens["draft"] = len(self.generate(self.network, ids, most=limit))
        with self._stage("synthesis", seconds):
            asked = dialogue("question_answer", tools=request.tools, own=request.user_text)
            prompt = self.model.render(asked, ())
            rows = self.sample(self.network, prompt, most=WRITTEN, count=len(sequences))
            tokens["synthesis"] = len(rows) * len(rows[0])  # a row that has ended goes on as well
            for written in rows:
                read_call(self.model.decode(written), request)
        with ExitStack() as practice:
            with self._stage("practice", seconds):
                network = practice.enter_context(self.adapted(wide=True))
                self.with_trainer(network, sequences)
                network.eval()
            with self._stage("answer", seconds):
                tokens["answer"] = len(self.generate(network, ids, most=limit))
            with self._stage("reset", seconds):
                practice.close()
        done = {"steps": self.config.learning.epochs, "examples": len(sequences)}
        return {"stages": seconds, "tokens": tokens, **done}

    @contextmanager
    def _stage(self, name: str, seconds: dict[str, float]) -> Iterator[None]:
        start = time.perf_counter()
        yield
        synchronise(self.model.device)
        seconds[name] = time.perf_counter() - start


def quiet() -> None:
    """Keeps the framework's notes and bars from between ours."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
