"""One adapter trained on labelled rows, once, and attached to every answer: `sft` and `oracle`.

The recipe is that of test-time practice (the same layers, loss on the answer alone, and in
activated mode the same shared prefix that the adapter does not act on), over many rows: shuffled
batches, the learning rate as `learning.schedule` has it. The trained adapter is kept by content
under the workbench's folder: the model, the rows and the settings. Rows that are too long for the
model are passed over.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from quickstudy import files, toolcalls
from quickstudy.config import Config
from quickstudy.errors import ConfigError, PracticeDiverged, RequestError
from quickstudy.footprint import footprint
from quickstudy.learning.lora import AdapterBank
from quickstudy.learning.practice import Lesson, fresh_adapters, lesson_losses, schedule
from quickstudy.methods.interface import Item, Outcome, Workbench
from quickstudy.toolcalls import CallFormat
from quickstudy.types import Answer, Episode

_ASKED = 5  # rows drafted to hear in which format the model calls


@dataclass(frozen=True)
class Training:
    """What training the one adapter took. `losses`: nats a token, of each step."""

    examples: int
    gradient_steps: int
    seconds: float
    peak_rss_mb: float | None
    losses: tuple[float, ...]


class Supervised:
    """Answers with an adapter trained on `rows`.

    Raises:
        ConfigError: if no row can be trained on.
    """

    def __init__(self, bench: Workbench, config: Config, rows: Sequence[Item], name: str) -> None:
        self.bench, self.config, self.name = bench, config, name
        self.improver = bench.improver(config)
        self.adapter, self.training = self._trained(rows)

    def answer(self, item: Item) -> Outcome:
        draft, before = self.bench.draft(self.improver, item.request)
        with footprint() as memory:
            memory.include(before)
            said = self.bench.adapted(draft, self.adapter, self.config)
        episode = Episode(
            method=self.name,
            certainty=None,
            threshold=self.improver.threshold,
            practised=False,
            fallback=None,
            draft=draft.reply,
            seconds={"prefill": said.seconds["prefill"], "answer": said.seconds["draft"]},
        )
        reply = said.reply
        answer = Answer(reply.content, reply.tool_calls, episode, item.request.id, reply.reasoning)
        return Outcome(answer, draft, memory.peak_mb)

    def _trained(self, rows: Sequence[Item]) -> tuple[AdapterBank, Training]:
        folder = self.bench.folder / f"{self.name}-{self._key(rows)}"
        facts = folder / "training.json"
        if facts.is_file():
            adapter = AdapterBank.load(self.bench.model.network, folder)
            told = json.loads(facts.read_text())
            return adapter, Training(**{**told, "losses": tuple(told["losses"])})
        adapter, training = self._train(rows)
        # whole or not at all: a folder half written would be taken for an adapter
        half = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(half, ignore_errors=True)
        adapter.save(half)
        files.write(half / facts.name, json.dumps(asdict(training)))
        shutil.rmtree(folder, ignore_errors=True)
        half.rename(folder)
        return adapter, training

    def _key(self, rows: Sequence[Item]) -> str:
        config = self.config
        content = [
            self.bench.model.fingerprint,
            config.learning.model_dump(mode="json"),
            config.decoding.model_dump(mode="json"),
            config.seed,
            [
                [
                    [message.to_openai() for message in row.request.messages],
                    [tool.to_openai() for tool in row.request.tools],
                    [call.to_json() for call in row.gold],
                ]
                for row in rows
            ],
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def _train(self, rows: Sequence[Item]) -> tuple[AdapterBank, Training]:
        learning, model = self.config.learning, self.bench.model
        adapter = fresh_adapters(model, learning, self.config.seed)
        parameters = adapter.parameters()
        optimizer = torch.optim.AdamW(
            parameters, lr=learning.learning_rate, weight_decay=0.0, foreach=True
        )
        size = learning.batch_size or len(rows)
        call_format = self._spoken(rows)
        batches = [
            rows_of_batch
            for epoch in range(learning.epochs)
            for rows_of_batch in _batches(rows, size, f"{self.config.seed} {epoch}")
        ]
        rate = schedule(optimizer, learning, len(batches))
        losses: list[float] = []
        read: set[int] = set()
        start = time.perf_counter()
        with footprint() as memory:
            for number, batch in enumerate(batches, 1):
                told = []
                for row in batch:
                    loss = self._loss(row, adapter, call_format)
                    if loss is None:
                        continue
                    (loss / len(batch)).backward()  # type: ignore[no-untyped-call]
                    told.append(loss.item())
                    read.add(id(row))
                if told:
                    losses.append(sum(told) / len(told))
                    for parameter, gradient in zip(parameters, adapter.gradients(), strict=True):
                        parameter.grad = gradient
                    optimizer.step()
                    adapter.zero_gradient()
                    adapter.sync()
                rate.step()
                self.bench.track(f"training {self.name}", number, len(batches))
        if not read:
            raise ConfigError(f"{self.name}: none of {len(rows)} training rows can be read")
        if not all(bool(weight.isfinite().all()) for weight in parameters):
            raise PracticeDiverged(
                f"{self.name}: training made a weight that is not finite;"
                " set a lower learning.learning_rate"
            )
        seconds = time.perf_counter() - start
        return adapter, Training(
            len(read), len(losses), seconds, memory.peak_mb, tuple(round(x, 4) for x in losses)
        )

    def _loss(
        self, row: Item, adapter: AdapterBank, call_format: CallFormat
    ) -> torch.Tensor | None:
        """A row's loss, to be differentiated; None if the model cannot read the row."""
        model, mode = self.bench.model, self.config.learning.mode
        try:
            context = model.prefill(row.request, self.config.decoding.thinking)
        except RequestError:
            return None
        text = toolcalls.write(row.gold, call_format, row.request.tools)
        lesson = Lesson(context.turn, model.answer_ids(text, context.thinking))
        if len(context.prefix.ids) + len(context.turn) + len(lesson.answer) > model.context_length:
            return None
        with adapter.attached():
            return lesson_losses(model, [context.prefix], [lesson], mode)[0]

    def _spoken(self, rows: Sequence[Item]) -> CallFormat:
        """The call format that the model speaks by itself."""
        heard: Counter[CallFormat] = Counter()
        for row in rows[:_ASKED]:
            try:
                heard[self.improver.draft(row.request).call_format or "json"] += 1
            except RequestError:
                continue
        return heard.most_common(1)[0][0] if heard else self.bench.model.call_formats[0]


def _batches(rows: Sequence[Item], size: int, seed: str) -> list[Sequence[Item]]:
    shuffled = random.Random(seed).sample(rows, len(rows))
    return [shuffled[start : start + size] for start in range(0, len(rows), size)]
