"""READ FIRST: the whole cycle, in `Improver.improve`.

    prefill -> draft -> sure?  yes: the draft is the answer
                               no:  write practice -> train a throw-away adapter -> answer -> forget

Whatever fails on the unsure path, the draft is the answer and the episode says why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from quickstudy import repair, toolcalls
from quickstudy.augmentation.synthesis import Synthesis, synthesise
from quickstudy.awareness.estimators import assess, check
from quickstudy.config import Config
from quickstudy.decoding import Ask, Deadline, Decoder, Draft, Generation
from quickstudy.errors import ConfigError, NoExamples, PracticeFailed
from quickstudy.learning.lora import Adapter
from quickstudy.learning.practice import Lesson, practised
from quickstudy.model import Context, LanguageModel
from quickstudy.teaching.teacher import Teacher, load_teacher
from quickstudy.toolcalls import CallFormat, Grammar
from quickstudy.types import Answer, Certainty, Episode, Example, Message, Rejected, Reply, Request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """Practice made beforehand: shared by several methods, or another's (`methods`).

    `made` is never changed. `seconds`: what making it took. `failure`: why nothing came of it.
    `under`: the draft whose prompt the examples continue; None: the one to improve. `adapter`:
    trained on instead of a fresh one.
    """

    made: Synthesis
    seconds: float = 0.0
    failure: str | None = None
    under: Draft | None = None
    adapter: Adapter | None = None


class Improver:
    """Answers requests with one model, practising first where it is unsure."""

    def __init__(
        self, model: LanguageModel, config: Config | None = None, teacher: Teacher | None = None
    ) -> None:
        """Raises ConfigError if a teacher or awareness's file is missing, or a teacher is idle."""
        self.model = model
        self.config = config or Config()
        if self.config.method == "tt-d" and teacher is None:
            raise ConfigError("method tt-d needs a teacher; give one, or use Improver.load")
        if self.config.method != "tt-d" and teacher is not None:
            raise ConfigError(f"method {self.config.method} has no teacher; set method tt-d")
        self.decoder = Decoder(model)
        self.teacher = teacher
        self.threshold = check(model, self.config)

    @classmethod
    def load(cls, model: str = "auto", config: Config | None = None) -> Improver:
        """Loads a hub id, a model folder, a GGUF file, `smollm2` or `auto`, and tt-d's teacher."""
        config = config or Config()
        teacher = load_teacher(config) if config.method == "tt-d" else None
        return cls(LanguageModel.load(model, config.model), config, teacher)

    def answer(
        self,
        messages: Any,
        tools: Any = None,
        id: str | int | None = None,
        choices: Any = None,
    ) -> Answer:
        """Answers one request in OpenAI chat form (`messages` may be a plain string).

        Raises:
            RequestError: if the request cannot be read or rendered. Faults on the unsure path
                do not raise: the draft is the answer and `episode.fallback` tells them.
        """
        return self.answer_request(Request.parse(messages, tools, id, choices))

    def answer_request(self, request: Request) -> Answer:
        return self.improve(self.draft(request))

    def draft(self, request: Request) -> Draft:
        """The greedy answer without practice, and what is needed to improve on it."""
        record = _Record()
        with record.stage("prefill"):
            context = self.model.prefill(request, self.config.decoding.thinking)
        with record.stage("draft"):
            grammar = self._grammar(request)
            generation = self._decode(context, grammar, Deadline())
            reply, call_format = toolcalls.read(generation.text, request.tools)
        return Draft(context, generation, grammar, reply, call_format, record.seconds)

    def improve(self, draft: Draft, practice: Callable[[Deadline], Given] | None = None) -> Answer:
        """The cycle: the draft itself if the model is sure of it, else the practised answer.

        Args:
            practice: gives what to practise, if it comes to that, instead of synthesis.
        """
        config = self.config
        record = _Record(dict(draft.seconds))
        if config.method == "base":
            return self._done(record, draft, draft.reply)
        try:
            deadline = Deadline.after(config.budget_seconds, sum(draft.seconds.values()))
            with record.stage("awareness"):
                record.certainty = assess(self.decoder, draft, config, deadline)
            if record.certainty.value >= self.threshold:
                return self._done(record, draft, draft.reply)
            with record.stage("synthesis"):
                given = practice(deadline) if practice else None
                if given is None:
                    into = record.synthesis
                    synthesise(self.decoder, draft, config, self.teacher, deadline, into)
            if given is not None:
                record.take(given)
            with ExitStack() as stack:
                if config.method == "tt-icl":
                    context = self._in_context(draft, record)
                else:
                    with record.stage("practice"):
                        context = self._practise(stack, draft, deadline, record, given)
                with record.stage("answer"):
                    final = self._answer(context, draft, record, deadline)
                with record.stage("reset"):
                    stack.close()
            record.practised = True
            return self._done(record, draft, final)
        except PracticeFailed as failure:
            record.fallback = str(failure)
        except Exception as error:
            # never worse off: a fault of ours costs the gain, not the answer
            identity = draft.context.request.id
            log.exception("request %s: %s failed; the draft is the answer", identity, record.at)
            record.fallback = f"{record.at} failed: {type(error).__name__}: {error}"
        return self._done(record, draft, draft.reply)

    def _grammar(self, request: Request, only: CallFormat | None = None) -> Grammar | None:
        decoding = self.config.decoding
        return self.decoder.grammar(request, decoding, decoding.thinking, only)

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
        draft: Draft,
        deadline: Deadline,
        record: _Record,
        given: Given | None,
    ) -> Context:
        """Trains an adapter that stays attached until the stack closes."""
        under = given.under if given and given.under else draft
        lessons, examples = [], []
        for example in record.synthesis.examples:
            turn = self.model.turn(under.context, example.messages, under.call_format)
            if turn is None:
                record.reject(example, "its prompt does not begin with the shared prefix")
                continue
            text = _answer_text(example, under)
            lessons.append(Lesson(turn, self.model.answer_ids(text, under.context.thinking)))
            examples.append(example)
        if not lessons:
            raise NoExamples("no practice example begins with the shared prefix")
        practice = stack.enter_context(
            practised(
                self.model,
                under.context.prefix,
                lessons,
                self.config.learning,
                informative_loss=self.config.augmentation.informative_loss,
                seed=self.config.seed,
                deadline=deadline,
                adapter=given.adapter if given else None,
            )
        )
        record.losses = practice.losses
        for index in practice.known:
            record.reject(examples[index], "the model already answers it")
        left = record.synthesis.examples
        if any(e.tool_calls for e in examples) and not any(e.tool_calls for e in left):
            # what is left calls nothing, and alone it would teach to call nothing
            raise NoExamples("the model already answers every practised call")
        if self.config.learning.mode == "full":  # the adapter must see the prefix as well
            return self.model.prefill(draft.context.request, draft.context.thinking)
        return draft.context

    def _in_context(self, draft: Draft, record: _Record) -> Context:
        """The request with the practice told before it, as turns of the conversation."""
        told: list[Message] = []
        # what calls nothing comes first: a small model copies the last answer it has read
        for example in sorted(record.synthesis.examples, key=lambda e: bool(e.tool_calls)):
            told += [message for message in example.messages if message.role != "system"]
            told.append(Message("assistant", _answer_text(example, draft)))
        asked = draft.context.request.messages
        system = [message for message in asked if message.role == "system"]
        messages = [*system, *told, *asked[len(system) :]]
        turn = self.model.turn(draft.context, messages, draft.call_format)
        if turn is None:
            raise NoExamples("with practice in it, the prompt does not begin with the prefix")
        length = len(draft.context.prefix.ids) + len(turn)
        if length >= self.model.context_length:
            reads = self.model.context_length
            raise NoExamples(
                f"with practice, the prompt has {length} tokens; the model reads {reads}"
            )
        return replace(draft.context, turn=tuple(turn))

    def _answer(self, context: Context, draft: Draft, record: _Record, deadline: Deadline) -> Reply:
        """Decodes the final answer under practice.

        Raises:
            PracticeFailed: if it is cut off, or invalid where the draft was valid.
        """
        request = context.request
        final = self._decode(context, self._grammar(request, draft.call_format), deadline)
        reply, _ = toolcalls.read(final.text, request.tools)
        if not final.finished:
            raise PracticeFailed("the practised answer was cut off")
        silent = "it calls nothing"
        in_words = not any(example.tool_calls for example in record.synthesis.examples)
        wrong = _first_problem(reply, request, None if in_words else silent)
        if wrong and not _first_problem(draft.reply, request, silent):
            raise PracticeFailed(f"the practised answer is not valid: {wrong}")
        return reply

    def _done(self, record: _Record, draft: Draft, final: Reply) -> Answer:
        request = draft.context.request
        changes: tuple[str, ...] = ()
        if request.tools and self.config.decoding.constrained and draft.grammar is None:
            record.synthesis.notes.append("decoded without constraint: the tools make no grammar")
        if self.config.repair:
            try:
                final, changes = repair.repair(final, request)
            except Exception as error:  # as above: it costs the repair, not the answer
                log.exception("request %s: repair failed; the answer stays as it is", request.id)
                record.synthesis.notes.append(f"repair failed: {type(error).__name__}: {error}")
        episode = Episode(
            method=self.config.method,
            certainty=record.certainty.value if record.certainty else None,
            threshold=self.threshold,
            practised=record.practised,
            fallback=record.fallback,
            draft=draft.reply,
            candidates=record.certainty.candidates if record.certainty else (),
            examples=tuple(record.synthesis.examples),
            rejected=tuple(record.synthesis.rejected),
            losses=record.losses,
            repaired=changes,
            notes=tuple(record.synthesis.notes),
            seconds=record.seconds,
        )
        return Answer(final.content, final.tool_calls, episode, request.id, final.reasoning)


@dataclass
class _Record:
    """What happens to one request, written down as it happens."""

    seconds: dict[str, float] = field(default_factory=dict)
    at: str = ""
    certainty: Certainty | None = None
    synthesis: Synthesis = field(default_factory=Synthesis)
    losses: tuple[float, ...] = ()
    practised: bool = False
    fallback: str | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.at = name
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start

    def take(self, given: Given) -> None:
        made = given.made
        self.synthesis = Synthesis([*made.examples], [*made.rejected], [*made.notes])
        self.seconds["synthesis"] = given.seconds
        if given.failure is not None:
            raise NoExamples(given.failure)

    def reject(self, example: Example, reason: str) -> None:
        self.synthesis.rejected.append(Rejected(example, reason))
        self.synthesis.examples = [e for e in self.synthesis.examples if e is not example]


def _answer_text(example: Example, draft: Draft) -> str:
    """How the model is to answer an example: in the draft's own call format, or in words."""
    if not example.tool_calls:
        return example.content
    assert draft.call_format is not None  # examples with calls are written for drafts with calls
    return toolcalls.write(example.tool_calls, draft.call_format, draft.context.request.tools)


def _first_problem(reply: Reply, request: Request, silent: str | None) -> str | None:
    """What is wrong with a reply's calls; `silent` if it makes none where tools are listed."""
    if not reply.tool_calls:
        return silent if request.tools else None
    wrong = (toolcalls.problem(call, request.tools) for call in reply.tool_calls)
    return next((reason for reason in wrong if reason), None)
