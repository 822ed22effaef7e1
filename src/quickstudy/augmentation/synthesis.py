"""Augmentation: from an unsure draft to verified practice examples.

Who writes: the model itself, or a teacher, which first says which call it would make. What is
written: the user's own request with other values (`substitution`), else a request for a fresh
call (`call_first`), or both at once (`question_answer`). All of it passes `verify.reject`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from quickstudy import toolcalls
from quickstudy.augmentation import call_first, memory, question_answer
from quickstudy.augmentation.author import Author, OwnWriter
from quickstudy.augmentation.no_tool import (
    begins_call,
    in_own_words,
    no_tool_example,
    says_enough,
)
from quickstudy.augmentation.substitution import Analysis, analyse, substitute
from quickstudy.augmentation.verify import reject
from quickstudy.awareness import rss
from quickstudy.awareness.names import name_log_probs
from quickstudy.config import Config
from quickstudy.decoding import Ask, Deadline, Decoder, Draft
from quickstudy.errors import ConfigError, NoExamples, TeacherFailed
from quickstudy.teaching.teacher import Teacher
from quickstudy.types import Candidate, Example, Message, Rejected, Reply, ToolCall

log = logging.getLogger(__name__)


@dataclass
class Synthesis:
    """What came of it, in the order it was made; `notes` for whoever reads the episode."""

    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def file(self, example: Example, reason: str | None) -> None:
        if reason is None:
            self.examples.append(example)
        else:
            self.rejected.append(Rejected(example, reason))


def synthesise(
    decoder: Decoder,
    draft: Draft,
    config: Config,
    teacher: Teacher | None,
    deadline: Deadline,
    into: Synthesis,
) -> None:
    """Makes up to K verified examples, and perhaps one more of a rival tool or of no tool.

    What was made before an error stays in `into`. With a practice memory, what was written for
    this very draft before is not written again.

    Raises:
        NoExamples: if none survives, or the draft gives nothing to practise.
        TeacherFailed: if the teacher does and the model may not teach itself.
    """
    silent = draft.context.request.tools and not draft.reply.tool_calls
    told = teacher and draft.call_format and config.augmentation.strategy != "question-answer"
    if silent and not told:
        raise NoExamples("the draft calls no tool, so there is no call to practise")
    if teacher is not None:
        bound = teacher.for_request(config.seed, deadline)
        try:
            _remembered(_Workshop(decoder, draft, config, bound, deadline, into))
        except (TeacherFailed, NoExamples) as failure:
            if config.teacher.fallback == "draft":
                raise
            who = "" if isinstance(failure, TeacherFailed) else f"with teacher {teacher.name}: "
            into.notes.append(f"{who}{failure}; the model taught itself")
            into.examples.clear()
        else:
            return
    _remembered(_Workshop(decoder, draft, config, None, deadline, into))


def _remembered(workshop: _Workshop) -> None:
    """The workshop's work, unless the practice memory has what came of it before.

    A memory that cannot be used costs nothing but the work.
    """
    settings, into, draft = workshop.settings, workshop.into, workshop.draft
    if settings.memory is None:
        workshop.work()
        return
    try:
        kept = memory.opened(settings.memory, settings.memory_megabytes)
    except ConfigError as error:
        log.warning("%s", error)
        into.notes.append(str(error))
        workshop.work()
        return
    teacher = workshop.teacher
    read = {"augmentation", "decoding", "seed"} | ({"teacher"} if teacher else set())
    said = workshop.config.model_dump(mode="json", include=read)
    for name in ("memory", "memory_megabytes", "informative_loss"):  # not read by synthesis
        del said["augmentation"][name]
    if teacher:
        said["teacher_name"] = teacher.name
    fingerprint = workshop.decoder.model.fingerprint
    key = memory.key(fingerprint, workshop.request, draft.reply, draft.call_format, said)
    examples = kept.recall(key)
    calls = [call for example in examples for call in example.tool_calls]
    if examples and not any(toolcalls.problem(call, workshop.request.tools) for call in calls):
        into.examples += examples
        into.notes.append("practice remembered")
        return
    workshop.work()
    kept.keep(key, into.examples)


class _Workshop:
    """One attempt to write practice for one draft, by the model itself or by a teacher."""

    def __init__(
        self,
        decoder: Decoder,
        draft: Draft,
        config: Config,
        teacher: Teacher | None,
        deadline: Deadline,
        into: Synthesis,
    ) -> None:
        self.decoder, self.draft, self.config, self.into = decoder, draft, config, into
        self.settings, self.context = config.augmentation, draft.context
        self.request = draft.context.request
        self.model, self.deadline = decoder.model, deadline
        self.teacher = teacher
        own = OwnWriter(decoder, self.settings.temperature, config.seed, deadline)
        self.author = Author(teacher or own)
        self.rng = random.Random(config.seed)

    def work(self) -> None:
        if not self.request.tools:
            self._plain()
        elif self.settings.strategy == "question-answer":
            self._question_answer()
        elif calls := self._calls():
            self._around(calls)
        if not self.into.examples:
            raise NoExamples("no practice example survived verification")
        if self.settings.no_tool and any(e.tool_calls for e in self.into.examples):
            self._no_tool()

    def _plain(self) -> None:
        for made in question_answer.write_plain(
            self.author.writer,
            self.request,
            examples=self.settings.examples,
            attempts=self.settings.attempts,
            samples=self.settings.samples,
            max_new_tokens=self.config.decoding.max_new_tokens,
        ):
            if isinstance(made, Rejected):
                self.into.rejected.append(made)
            else:
                self.into.examples.append(made)

    def _question_answer(self) -> None:
        into, wanted = self.into, self.settings.examples
        count = wanted * self.settings.attempts
        for example in question_answer.write_calls(self.author.writer, self.request, count):
            if self.settings.verify == "form":
                reason = question_answer.malformed(example, self.request)
            else:
                reason = reject(example, self.request, into.examples)
            if reason or len(into.examples) < wanted:
                into.file(example, reason)

    def _calls(self) -> Sequence[ToolCall]:
        """The calls that practice is written around; none if the teacher would call nothing."""
        if self.teacher is None:
            calls = self.draft.reply.tool_calls
            if any(self.request.tool(call.name) is None for call in calls):
                raise NoExamples("the draft calls a tool that is not listed")
            return calls
        reply = self.teacher.answer(self.request)
        for call in reply.tool_calls:
            wrong = toolcalls.problem(call, self.request.tools)
            if wrong:
                name = self.teacher.name
                raise TeacherFailed(f"the call of teacher {name} is not valid: {wrong}")
        if not reply.tool_calls:
            self._in_words(reply.content)
        return reply.tool_calls

    def _around(self, calls: Sequence[ToolCall]) -> None:
        analysis, strategy = analyse(self.request, calls), self.settings.strategy
        if strategy in ("auto", "substitution"):
            self._substitute(analysis)
        if strategy in ("auto", "call-first") and not self.into.examples:
            self._call_first(analysis)

    def _substitute(self, analysis: Analysis) -> None:
        wanted = self.settings.examples
        made = substitute(self.request, analysis, wanted, self.rng, self.author.values)
        for example in made:
            if len(self.into.examples) == wanted:
                break
            if any(example == other.example for other in self.into.rejected):
                continue  # there are few values to vary: once is enough for the record
            self.into.file(
                example, reject(example, self.request, self.into.examples, analysis.kept)
            )

    def _in_words(self, words: str) -> None:
        """The teacher calls nothing: the user's request with other values, answered in its words.

        Its words are told as a turn of the conversation, so that values in them change as well.
        """
        said = Message("assistant", words.strip())
        request = replace(self.request, messages=(*self.request.messages, said))
        analysis = analyse(self.request, self.draft.reply.tool_calls)
        wanted = self.settings.examples
        for made in substitute(request, analysis, wanted, self.rng, self.author.values):
            if len(self.into.examples) == wanted:
                break
            *messages, answer = made.messages
            example = Example(tuple(messages), (), "substitution", answer.content)
            reason = None if words.strip() else "the teacher says nothing"
            told = [self.request.user_text, *(e.user_text for e in self.into.examples)]
            if example.user_text in told:
                reason = "it copies the user's request or another example"
            self.into.file(example, reason)

    def _no_tool(self) -> None:
        """One more example: what the model rightly answers without a call, it shall go on to.

        Where it calls a tool even then, a few steps do not teach it otherwise and cost the other
        examples their effect (LOG.md), so it is not practised.
        """
        example = no_tool_example(self.request, self.rng)
        if example is None:
            return
        turn = self.model.turn(self.context, example.messages, self.draft.call_format)
        if turn is None:
            return
        reply = self._first_sentence(turn)
        if reply.tool_calls or begins_call(reply.content):
            self.into.file(example, "asked this, the model itself begins a call")
        else:
            self.into.file(in_own_words(example, reply), None)

    def _first_sentence(self, turn: Sequence[int]) -> Reply:
        """The model's own reply to another turn under the same tools; of a call its beginning."""
        (said,) = self.decoder.decode(
            self.context.prefix,
            [
                Ask(
                    turn,
                    self.draft.grammar,
                    listener=lambda ids: says_enough(self.model.decode(ids)),
                )
            ],
            max_new_tokens=48,
            deadline=self.deadline,
        )
        return toolcalls.read(said.text, self.request.tools)[0]

    def _call_first(self, analysis: Analysis) -> None:
        into, settings = self.into, self.settings
        assert self.draft.call_format is not None  # drafts without one raise in `synthesise`
        count = settings.examples * settings.attempts
        unclear: list[Example] = []
        for example in call_first.write_examples(self.author, self.request, analysis, count):
            exempt = call_first.ungroundable(example, self.request)
            reason = reject(example, self.request, into.examples, exempt)
            if reason is None and any(exempt):
                unclear.append(example)
            elif reason is not None or len(into.examples) < settings.examples:
                into.file(example, reason)
        if unclear and settings.examples > len(into.examples):
            held = call_first.round_trip(
                self.decoder,
                self.context,
                unclear,
                self.draft.call_format,
                self.draft.grammar,
                self.config.decoding.max_new_tokens,
                self.deadline,
            )
            for example, same in zip(unclear, held, strict=True):
                reason = None if same else "asked this, the model makes another call"
                if reason or len(into.examples) < settings.examples:
                    into.file(example, reason)
        if into.examples and len(self.request.tools) > 1 and len(analysis.calls) == 1:
            self._rival(analysis)

    def _rival(self, analysis: Analysis) -> None:
        call_format = self.draft.call_format
        assert call_format is not None  # likewise
        names = [tool.name for tool in self.request.tools]
        turn = list(self.context.turn)
        scores = name_log_probs(self.decoder, self.context, turn, names, call_format)
        candidates = list(map(Candidate, names, scores))
        rival = self.request.tool(
            call_first.rival_of(candidates, rss.relative_softmax(scores), analysis.calls[0].name)
            or ""
        )
        if rival is None:
            return
        made = call_first.rival_example(
            self.author, self.decoder, self.context, rival, self.into.examples, call_format
        )
        if isinstance(made, Rejected):
            self.into.rejected.append(made)
        else:
            self.into.examples.append(made)
