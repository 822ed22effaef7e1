"""READ FIRST: the whole cycle, in `Improver.improve`.

    prefill -> draft -> sure?  yes: the draft is the answer
                               no:  reconsider the draft -> write practice
                                    -> train a throw-away adapter -> answer -> forget

Whatever fails on the unsure path, the draft is the answer (reconsidered or not) and the episode
says why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from quickstudy import repair, toolcalls
from quickstudy.augmentation.synthesis import Synthesis, synthesise
from quickstudy.awareness.estimators import assess, check
from quickstudy.awareness.reconsider import second_draft, speaking
from quickstudy.config import Config
from quickstudy.decoding import Ask, Deadline, Decoder, Draft, Generation
from quickstudy.errors import ConfigError, NoExamples, PracticeFailed
from quickstudy.learning.lora import AdapterBank
from quickstudy.learning.practice import Lesson, Practice, Study, practised_together
from quickstudy.model import Context, LanguageModel
from quickstudy.teaching.teacher import Teacher, load_teacher
from quickstudy.together import side_by_side
from quickstudy.toolcalls import CallFormat, Grammar
from quickstudy.types import Answer, Certainty, Episode, Example, Message, Rejected, Reply, Request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """Practice made beforehand: shared by several methods, or another's (`methods`).

    `made` is never changed. `seconds`: what making it took. `failure`: why nothing came of it.
    `under`: the draft whose prompt the examples continue; None: the one to improve. `adapter`:
    what practice goes on from, and is kept in; None: a fresh one.
    """

    made: Synthesis
    seconds: float = 0.0
    failure: str | None = None
    under: Draft | None = None
    adapter: AdapterBank | None = None


Source = Callable[[Draft, Deadline], Given]


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

    def answer_many(self, requests: Sequence[Request], at_once: int = 8) -> list[Answer]:
        """Answers several requests, `at_once` side by side: decoded and trained in the same passes.

        Each gets its own adapter, and in exact arithmetic the answer that it would get alone. The
        seconds of what is done together are those of the batch, and the batch gives up
        practice when the first of its requests has spent its time budget.

        Raises:
            RequestError: as `answer`, before anything is decoded.
        """
        if at_once < 1:
            raise ValueError(f"at_once is {at_once}; one request at a time is the least")
        for request in requests:
            self.model.prompt(request, self.config.decoding.thinking)
        answers: list[Answer] = []
        for first in range(0, len(requests), at_once):
            answers += self.improve_many(self.draft_many(requests[first : first + at_once]))
        return answers

    def draft(self, request: Request, deadline: Deadline | None = None) -> Draft:
        """The greedy answer without practice, and what is needed to improve on it.

        Raises:
            RequestError: as `answer`.
            BudgetSpent: if a deadline is given and passes.
        """
        return self.draft_many([request], deadline)[0]

    def draft_many(
        self, requests: Sequence[Request], deadline: Deadline | None = None
    ) -> list[Draft]:
        seconds: dict[str, float] = {}
        with _timed(seconds, "prefill"):
            thinking = self.config.decoding.thinking
            contexts = [self.model.prefill(request, thinking) for request in requests]
        with _timed(seconds, "draft"):
            grammars = [self._grammar(request) for request in requests]
            # values are often copied from the user's words
            asks = [
                Ask(context.turn, grammar, likely=context.turn)
                for context, grammar in zip(contexts, grammars, strict=True)
            ]
            said = self._decode(contexts, asks, deadline or Deadline())
            read = [
                toolcalls.read(one.text, request.tools)
                for one, request in zip(said, requests, strict=True)
            ]
        drafts = zip(contexts, said, grammars, read, strict=True)
        return [Draft(c, one, g, *reply, dict(seconds)) for c, one, g, reply in drafts]

    def improve(self, draft: Draft, source: Source | None = None) -> Answer:
        """The cycle: the draft itself if the model is sure of it, else the practised answer."""
        return self.improve_many([draft], source)[0]

    def improve_many(self, drafts: Sequence[Draft], source: Source | None = None) -> list[Answer]:
        """The cycle for several drafts; whatever fails for one leaves the others alone.

        Args:
            source: gives what to practise for an unsure draft, instead of synthesis.
        """
        cases = [self.judge(draft) for draft in drafts]
        self.practise([case for case in cases if case.unsure], source)
        return [self.finish(case) for case in cases]

    def judge(self, draft: Draft, deadline: Deadline | None = None) -> Case:
        """First third of `improve_many`: is the model sure of a draft?

        `deadline` stands in for that of `config.budget_seconds`.
        """
        spent = sum(draft.seconds.values())
        case = Case(draft, deadline or Deadline.after(self.config.budget_seconds, spent))
        if self.config.method != "base":
            with _safely([case], "awareness"):
                case.certainty = assess(self.decoder, draft, self.config, case.deadline)
                case.unsure = case.certainty.value < self.threshold
                if not case.unsure:
                    case.final = self._sure(case)
        return case

    def practise(self, cases: Sequence[Case], source: Source | None = None) -> None:
        """Second third: practises and answers those of which the model is unsure, side by side."""
        self._give_practice(cases, source)
        with self._practised([case for case in cases if case.fallback is None]) as practised:
            self._answer(practised)

    def _sure(self, case: Case) -> Reply:
        """The draft; where the request wants its answer drawn, an answer drawn in its place."""
        context, sampling = case.context, case.context.request.sampling
        if sampling.temperature == 0:
            return case.draft.reply
        ask = Ask(context.turn, case.draft.grammar, sampling=sampling)
        (drawn,) = self._decode([context], [ask], case.deadline)
        return toolcalls.read(drawn.text, context.request.tools)[0]

    def _give_practice(self, cases: Sequence[Case], source: Source | None = None) -> None:
        self._reconsider(cases)
        cases = [case for case in cases if case.fallback is None]
        if source is None and self.teacher is None and len(cases) > 1:
            works = [partial(self._synthesise, case) for case in cases]
            with _safely(cases, "synthesis"):
                side_by_side(self.decoder, works)
            return
        for case in cases:
            if source is None:
                self._synthesise(case, self.decoder)
            else:
                with _safely([case], "synthesis"):
                    case.take(source(case.draft, case.deadline))
                if case.given is not None:
                    case.seconds["synthesis"] = case.given.seconds

    def _reconsider(self, cases: Sequence[Case]) -> None:
        before = [case.seconds.get("awareness", 0.0) for case in cases]
        works = [partial(self._give_way, case) for case in cases]
        if len(cases) > 1:
            with _safely(cases, "awareness"):
                side_by_side(self.decoder, works)
        else:
            for work in works:
                work(self.decoder)
        for case, spent in zip(cases, before, strict=True):
            case.seconds["awareness"] += spent

    def _give_way(self, case: Case, decoder: Decoder) -> None:
        with _safely([case], "awareness"):
            case.give_way(self.reconsider(case.draft, case.deadline, decoder))

    def reconsider(self, draft: Draft, deadline: Deadline, decoder: Decoder | None = None) -> Draft:
        """What an unsure draft gives way to before practice: often itself.

        It tells a call format even where it calls nothing.

        Raises:
            BudgetSpent: if the deadline passes.
        """
        draft = speaking(decoder or self.decoder, draft)
        if self.teacher or not self.config.awareness.reconsider:
            return draft
        most = self.config.decoding.max_new_tokens
        return second_draft(decoder or self.decoder, draft, most, deadline)

    def _synthesise(self, case: Case, decoder: Decoder) -> None:
        with _safely([case], "synthesis"):
            synthesise(
                decoder, case.draft, self.config, self.teacher, case.deadline, case.synthesis
            )

    @contextmanager
    def _practised(self, cases: Sequence[Case]) -> Iterator[list[Case]]:
        """Inside, the network answers each case with what it has practised for it."""
        if self.config.method == "tt-icl":
            for case in cases:
                with _safely([case], "answer"):  # nothing is trained: it is read with the answer
                    case.context = self._in_context(case)
            yield [case for case in cases if case.fallback is None]
            return
        with ExitStack() as practice:
            with _safely(cases, "practice"):
                self._practise(practice, cases)
            try:
                yield [case for case in cases if case.fallback is None]
            finally:
                with _safely(cases, "reset"):
                    practice.close()

    def _grammar(self, request: Request, only: CallFormat | None = None) -> Grammar | None:
        decoding = self.config.decoding
        return self.decoder.grammar(request, decoding, decoding.thinking, only)

    def _decode(
        self, contexts: Sequence[Context], asks: Sequence[Ask], deadline: Deadline
    ) -> list[Generation]:
        return self.decoder.decode(
            [context.prefix for context in contexts],
            asks,
            max_new_tokens=self.config.decoding.max_new_tokens,
            deadline=deadline,
        )

    def _practise(self, stack: ExitStack, cases: Sequence[Case]) -> None:
        """Trains an adapter a case; they stay attached until the stack closes."""
        studies: list[Study] = []
        students: list[Case] = []
        for case in cases:
            with _safely([case], "practice"):
                adapter = case.given.adapter if case.given else None
                prefix, lessons = case.taught_under.context.prefix, self._lessons(case)
                studies.append(Study(prefix, lessons, adapter))
                students.append(case)
        if not students:
            return
        bank, outcomes = stack.enter_context(
            practised_together(
                self.model,
                studies,
                self.config.learning,
                informative_loss=self.config.augmentation.informative_loss,
                seed=self.config.seed,
                deadline=_first(students),
            )
        )
        for number, (case, practice) in enumerate(zip(students, outcomes, strict=True)):
            with _safely([case], "practice"):
                case.adapter = number
                self._review(case, practice)
                if self.config.learning.mode == "full":  # the adapter must see the prefix as well
                    bank.assign([number])
                    context = case.draft.context
                    case.context = self.model.prefill(context.request, context.thinking)
        bank.assign([case.adapter for case in students if case.fallback is None])

    def _lessons(self, case: Case) -> list[Lesson]:
        draft, lessons = case.taught_under, []
        for example in list(case.synthesis.examples):
            turn = self.model.turn(draft.context, example.messages, draft.call_format)
            if turn is None:
                case.reject(example, "its prompt does not begin with the shared prefix")
                continue
            text = _answer_text(example, draft)
            lessons.append(Lesson(turn, self.model.answer_ids(text, draft.context.thinking)))
        if not lessons:
            raise NoExamples("no practice example begins with the shared prefix")
        return lessons

    def _review(self, case: Case, practice: Practice) -> None:
        """Writes down what practice did; raises if its adapter is not to be used."""
        case.losses = tuple(practice.losses)
        if practice.failure:
            raise practice.failure
        examples = list(case.synthesis.examples)
        for index in practice.known:
            case.reject(examples[index], "the model already answers it")
        left = case.synthesis.examples
        if any(e.tool_calls for e in examples) and not any(e.tool_calls for e in left):
            # what is left calls nothing, and alone it would teach to call nothing
            raise NoExamples("the model already answers every practised call")

    def _in_context(self, case: Case) -> Context:
        """The request with the practice told before it, as turns of the conversation."""
        draft, told = case.draft, list[Message]()
        # what calls nothing comes first: a small model copies the last answer it has read
        for example in sorted(case.synthesis.examples, key=lambda e: bool(e.tool_calls)):
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

    def _answer(self, cases: Sequence[Case]) -> None:
        """Decodes the final answers under practice."""
        if not cases:
            return
        with _safely(cases, "answer"):
            asks = [
                Ask(
                    case.context.turn,
                    self._grammar(case.context.request, case.draft.call_format),
                    # most of the draft stays
                    likely=(*case.draft.generation.ids, *case.draft.context.turn),
                    opens=True,
                    sampling=case.context.request.sampling,
                )
                for case in cases
            ]
            said = self._decode([case.context for case in cases], asks, _first(cases))
            for case, final in zip(cases, said, strict=True):
                with _safely([case], "answer"):
                    case.final = _accepted(final, case)
                    case.practised = True

    def finish(self, case: Case) -> Answer:
        """Last third: the answer, and how it came about."""
        request, final = case.draft.context.request, case.final
        changes: tuple[str, ...] = ()
        case.synthesis.notes += unconstrained(request, self.config, case.draft.grammar)
        if case.practised and self.config.learning.keep_stated:
            with _harmless(case, "keeping what the draft states"):
                final, kept = repair.keep_stated(final, case.draft.reply, request)
                case.synthesis.notes += kept
        if self.config.repair:
            with _harmless(case, "repair"):
                final, changes = repair.repair(final, request)
        episode = Episode(
            method=self.config.method,
            certainty=case.certainty.value if case.certainty else None,
            threshold=self.threshold,
            practised=case.practised,
            fallback=case.fallback,
            draft=case.drafted,
            candidates=case.certainty.candidates if case.certainty else (),
            examples=tuple(case.synthesis.examples),
            rejected=tuple(case.synthesis.rejected),
            losses=case.losses,
            repaired=changes,
            notes=(*case.notes, *case.synthesis.notes),
            seconds=case.seconds,
        )
        return Answer(final.content, final.tool_calls, episode, request.id, final.reasoning)


class Case:
    """One request on its way through the cycle, and what happens to it, written down as it does.

    `drafted` is what the model said at first; `draft` what it goes on from, and `standby` what is
    answered if practice fails: a second draft, where the first gave way to one. `final` is that
    until there is a better answer; `fallback` says why practice gave none.
    """

    def __init__(self, draft: Draft, deadline: Deadline) -> None:
        self.draft, self.context = draft, draft.context
        self.drafted = self.standby = self.final = draft.reply
        self.deadline = deadline
        self.unsure = False
        self.seconds = dict(draft.seconds)
        self.certainty: Certainty | None = None
        self.given: Given | None = None
        self.notes: list[str] = []
        self.synthesis = Synthesis()
        self.adapter = 0
        self.losses: tuple[float, ...] = ()
        self.practised = False
        self.fallback: str | None = None

    @property
    def taught_under(self) -> Draft:
        """The draft whose prompt the practice examples continue."""
        return (self.given and self.given.under) or self.draft

    def give_way(self, second: Draft) -> None:
        """Goes on from a second draft, which is also the answer if practice fails."""
        if second.reply != self.draft.reply:
            self.notes.append(_way(self.drafted, second.reply))
            if not second.reply.tool_calls:
                self.fallback = "nobody has stated what a call requires, so that is asked for"
            self.standby = self.final = second.reply
        self.draft = second

    def take(self, given: Given) -> None:
        self.given, made = given, given.made
        self.synthesis = Synthesis([*made.examples], [*made.rejected], [*made.notes])
        if given.failure is not None:
            raise NoExamples(given.failure)

    def reject(self, example: Example, reason: str) -> None:
        self.synthesis.rejected.append(Rejected(example, reason))
        self.synthesis.examples = [e for e in self.synthesis.examples if e is not example]


def _way(first: Reply, second: Reply) -> str:
    """How a draft gave way to another."""
    before, after = (" and ".join(c.name for c in r.tool_calls) for r in (first, second))
    if not after:
        return f"asks instead of calling {before}"
    if before != after:
        return f"{after} fits better than {before or 'words'}"
    pairs = zip(first.tool_calls, second.tool_calls, strict=True)
    out = [name for one, two in pairs for name in one.arguments if name not in two.arguments]
    return f"{after} without {', '.join(out)}: guessed, and stated by nobody"


def unconstrained(request: Request, config: Config, grammar: Grammar | None) -> list[str]:
    """A note, where the tools should have held the answer and could not."""
    if request.tools and config.decoding.constrained and grammar is None:
        return ["decoded without constraint: the tools make no grammar"]
    return []


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = time.perf_counter() - start


@contextmanager
def _safely(cases: Sequence[Case], stage: str) -> Iterator[None]:
    """Times a stage; a failure in it makes the drafts the answers and says why.

    Never worse off: a fault of ours costs the gain, not the answer.
    """
    reason, seconds = None, dict[str, float]()
    try:
        with _timed(seconds, stage):
            yield
    except PracticeFailed as failure:
        reason = str(failure)
    except Exception as error:
        told = [case.draft.context.request.id for case in cases]
        log.exception("request %s: %s failed; the draft is the answer", told, stage)
        reason = f"{stage} failed: {type(error).__name__}: {error}"
    for case in cases:
        case.seconds |= seconds
        if reason:
            case.fallback = case.fallback or reason
            case.final, case.practised = case.standby, False


@contextmanager
def _harmless(case: Case, rule: str) -> Iterator[None]:
    """A fault in a rule costs what the rule would do, not the answer."""
    try:
        yield
    except Exception as error:
        told = case.draft.context.request.id
        log.exception("request %s: %s failed; the answer stays as it is", told, rule)
        case.synthesis.notes.append(f"{rule} failed: {type(error).__name__}: {error}")


def _first(cases: Sequence[Case]) -> Deadline:
    """The deadline that comes first."""
    told = [case.deadline for case in cases if case.deadline.at is not None]
    return min(told, key=lambda deadline: deadline.at or 0.0, default=Deadline())


def _accepted(final: Generation, case: Case) -> Reply:
    """The practised answer, read.

    Raises:
        PracticeFailed: if it is cut off, invalid where the draft was valid, or astray.
    """
    request = case.context.request
    reply, _ = toolcalls.read(final.text, request.tools)
    if not final.finished:
        raise PracticeFailed("the practised answer was cut off")
    silent = "it calls nothing"
    in_words = not any(example.tool_calls for example in case.synthesis.examples)
    wrong = _first_problem(reply, request, None if in_words else silent)
    if wrong and not _first_problem(case.draft.reply, request, silent):
        raise PracticeFailed(f"the practised answer is not valid: {wrong}")
    if astray := _astray(reply, case):
        raise PracticeFailed(f"the practised answer calls {astray}, which was not practised")
    return reply


def _astray(reply: Reply, case: Case) -> str | None:
    """A tool that a practised answer calls, and neither the draft nor any of its practice does.

    None too where practice called tools that are not listed: that says nothing of the choice.
    """
    practised = {call.name for example in case.synthesis.examples for call in example.tool_calls}
    if not practised or not all(map(case.context.request.tool, practised)):
        return None
    expected = practised.union(call.name for call in case.draft.reply.tool_calls)
    return next((call.name for call in reply.tool_calls if call.name not in expected), None)


def _answer_text(example: Example, draft: Draft) -> str:
    """How the model is to answer an example: in the draft's own call format, or in words."""
    if not example.tool_calls:
        return example.content
    assert draft.call_format is not None  # `practise` has seen to it
    return toolcalls.write(example.tool_calls, draft.call_format, draft.context.request.tools)


def _first_problem(reply: Reply, request: Request, silent: str | None) -> str | None:
    """What is wrong with a reply's calls; `silent` if it makes none where tools are listed."""
    if not reply.tool_calls:
        return silent if request.tools else None
    wrong = (toolcalls.problem(call, request.tools) for call in reply.tool_calls)
    return next((reason for reason in wrong if reason), None)
