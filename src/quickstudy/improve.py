"""READ FIRST: the whole cycle, in `Improver.answer_request`.

    prefill -> draft -> sure?  yes: the draft is the answer
                               no:  write practice -> train a throw-away adapter -> answer -> forget

Whatever fails on the unsure path, the draft is the answer and the episode says why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from quickstudy import toolcalls
from quickstudy.augmentation.synthesis import Synthesis, synthesise
from quickstudy.awareness.estimators import assess
from quickstudy.config import Config
from quickstudy.decoding import Ask, Deadline, Decoder, Generation
from quickstudy.errors import NoExamples, PracticeFailed
from quickstudy.learning.practice import Lesson, practised
from quickstudy.model import Context, LanguageModel
from quickstudy.toolcalls import CallFormat, Grammar
from quickstudy.types import Answer, Certainty, Episode, Rejected, Reply, Request

log = logging.getLogger(__name__)


class Improver:
    """Answers requests with one model, practising first where it is unsure."""

    def __init__(self, model: LanguageModel, config: Config | None = None) -> None:
        self.model = model
        self.config = config or Config()
        self.decoder = Decoder(model)

    @classmethod
    def load(cls, model: str = "auto", config: Config | None = None) -> Improver:
        """Loads a hub id, a model folder, a GGUF file, `smollm2` or `auto`."""
        config = config or Config()
        return cls(LanguageModel.load(model, config.model), config)

    def answer(self, messages: Any, tools: Any = None, id: str | int | None = None) -> Answer:
        """Answers one request in OpenAI chat form (`messages` may be a plain string).

        Raises:
            RequestError: if the request cannot be read or rendered. Faults on the unsure path
                do not raise: the draft is the answer and `episode.fallback` tells them.
        """
        return self.answer_request(Request.parse(messages, tools, id))

    def answer_request(self, request: Request) -> Answer:
        config, record = self.config, _Record()
        deadline = Deadline.after(config.budget_seconds)
        with record.stage("prefill"):
            context = self.model.prefill(request)
        with record.stage("draft"):
            grammar = self._grammar(request)
            draft = self._decode(context, grammar, Deadline())
            reply, call_format = toolcalls.read(draft.text, request.tools)
        if config.method == "base":
            return record.answer(request, config, reply, reply)
        try:
            with record.stage("awareness"):
                record.certainty = assess(
                    self.decoder,
                    context,
                    draft,
                    grammar,
                    config.awareness,
                    config.decoding,
                    deadline,
                )
            if record.certainty.value >= config.awareness.threshold:
                return record.answer(request, config, reply, reply)
            with record.stage("synthesis"):
                synthesise(
                    self.decoder,
                    context,
                    reply,
                    call_format,
                    grammar,
                    config,
                    deadline,
                    record.synthesis,
                )
            with ExitStack() as practice:
                with record.stage("practice"):
                    self._practise(practice, context, call_format, deadline, record)
                with record.stage("answer"):
                    final = self._answer(context, reply, call_format, deadline)
                with record.stage("reset"):
                    practice.close()
            return record.answer(request, config, reply, final)
        except PracticeFailed as failure:
            record.fallback = str(failure)
        except (
            Exception
        ) as error:  # never worse off: a fault of ours costs the gain, not the answer
            log.exception("request %s: %s failed; the draft is the answer", request.id, record.at)
            record.fallback = f"{record.at} failed: {type(error).__name__}: {error}"
        return record.answer(request, config, reply, reply)

    def _grammar(self, request: Request, only: CallFormat | None = None) -> Grammar | None:
        if not request.tools or not self.config.decoding.constrained:
            return None
        limit = self.config.decoding.max_calls
        grammar = toolcalls.grammar(request.tools, self.model.single_tokens, only, limit)
        refusal = self.decoder.refusal(grammar)
        if refusal:  # a pattern with look-ahead, say: an unconstrained answer beats none
            log.warning("request %s is decoded without constraint: %s", request.id, refusal)
            return None
        return grammar

    def _decode(self, context: Context, grammar: Grammar | None, deadline: Deadline) -> Generation:
        return self.decoder.decode(
            context.prefix,
            [Ask(context.turn, grammar)],
            max_new_tokens=self.config.decoding.max_new_tokens,
            deadline=deadline,
        )[0]

    def _practise(
        self,
        stack: ExitStack,
        context: Context,
        call_format: CallFormat | None,
        deadline: Deadline,
        record: _Record,
    ) -> None:
        assert call_format is not None  # synthesis has examples only for drafts with calls
        lessons, examples = [], []
        for example in record.synthesis.examples:
            turn = self.model.turn(context, example.messages, call_format)
            if turn is None:
                record.reject(example, "its prompt does not begin with the shared prefix")
                continue
            text = toolcalls.write(example.tool_calls, call_format, context.request.tools)
            lessons.append(Lesson(turn, self.model.answer_ids(text)))
            examples.append(example)
        if not lessons:
            raise NoExamples("no practice example begins with the shared prefix")
        practice = stack.enter_context(
            practised(
                self.model,
                context.prefix,
                lessons,
                self.config.learning,
                informative_loss=self.config.augmentation.informative_loss,
                seed=self.config.seed,
                deadline=deadline,
            )
        )
        record.losses = practice.losses
        for index in practice.known:
            record.reject(examples[index], "the model already answers it")

    def _answer(
        self, context: Context, draft: Reply, call_format: CallFormat | None, deadline: Deadline
    ) -> Reply:
        """Decodes the final answer with the adapter attached.

        Raises:
            PracticeFailed: if it is cut off, or invalid where the draft was valid.
        """
        if self.config.learning.mode == "full":  # the adapter must see the prefix as well
            context = self.model.prefill(context.request)
        grammar = self._grammar(context.request, call_format)
        final = self._decode(context, grammar, deadline)
        reply, _ = toolcalls.read(final.text, context.request.tools)
        if not final.finished:
            raise PracticeFailed("the practised answer was cut off")
        wrong = _first_problem(reply, context.request)
        if wrong and not _first_problem(draft, context.request):
            raise PracticeFailed(f"the practised answer is not valid: {wrong}")
        return reply


@dataclass
class _Record:
    """What happens to one request, written down as it happens."""

    seconds: dict[str, float] = field(default_factory=dict)
    at: str = ""
    certainty: Certainty | None = None
    synthesis: Synthesis = field(default_factory=Synthesis)
    losses: tuple[float, ...] = ()
    fallback: str | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.at = name
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start

    def reject(self, example: Any, reason: str) -> None:
        self.synthesis.rejected.append(Rejected(example, reason))
        self.synthesis.examples = [e for e in self.synthesis.examples if e is not example]

    def answer(self, request: Request, config: Config, draft: Reply, final: Reply) -> Answer:
        episode = Episode(
            method=config.method,
            certainty=self.certainty.value if self.certainty else None,
            threshold=config.awareness.threshold,
            practised=bool(self.losses) and self.fallback is None,
            fallback=self.fallback,
            draft=draft,
            candidates=self.certainty.candidates if self.certainty else (),
            examples=tuple(self.synthesis.examples),
            rejected=tuple(self.synthesis.rejected),
            losses=self.losses,
            seconds=self.seconds,
        )
        return Answer(final.content, final.tool_calls, episode, request.id)


def _first_problem(reply: Reply, request: Request) -> str | None:
    if not reply.tool_calls:
        return "it calls nothing"
    wrong = (toolcalls.problem(call, request.tools) for call in reply.tool_calls)
    return next((reason for reason in wrong if reason), None)
