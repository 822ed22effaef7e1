"""Augmentation: from an unsure draft to verified practice examples."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from quickstudy.augmentation import call_first
from quickstudy.augmentation.author import Author, OwnWriter
from quickstudy.augmentation.substitution import Analysis, analyse, substitute
from quickstudy.augmentation.verify import reject
from quickstudy.awareness import rss
from quickstudy.awareness.estimators import name_log_probs
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Decoder
from quickstudy.errors import NoExamples
from quickstudy.model import Context
from quickstudy.toolcalls import CallFormat, Grammar
from quickstudy.types import Candidate, Example, Rejected, Reply


@dataclass
class Synthesis:
    """What came of it, in the order it was made."""

    examples: list[Example] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def synthesise(
    decoder: Decoder,
    context: Context,
    draft: Reply,
    call_format: CallFormat | None,
    grammar: Grammar | None,
    config: Config,
    deadline: Deadline,
    into: Synthesis,
) -> None:
    """Makes up to K verified examples, and call-first perhaps one more of a rival tool.

    What was made before an error stays in `into`.

    Raises:
        NoExamples: if none survives, or the draft gives nothing to practise.
    """
    request = context.request
    if not draft.tool_calls or call_format is None:
        raise NoExamples("the draft calls no tool, so there is no call to practise")
    if any(request.tool(call.name) is None for call in draft.tool_calls):
        raise NoExamples("the draft calls a tool that is not listed")
    analysis = analyse(request, draft.tool_calls)
    author = Author(OwnWriter(decoder, config.augmentation.temperature, config.seed, deadline))
    if config.augmentation.strategy != "call-first":
        _substitute(context, analysis, config, author, into)
    if config.augmentation.strategy != "substitution" and not into.examples:
        _write_call_first(
            decoder, context, analysis, call_format, grammar, config, deadline, author, into
        )
    if not into.examples:
        raise NoExamples("no practice example survived verification")


def _substitute(
    context: Context, analysis: Analysis, config: Config, author: Author, into: Synthesis
) -> None:
    rng = random.Random(config.seed)
    wanted = config.augmentation.examples
    for example in substitute(context.request, analysis, wanted, rng, author.values):
        _file(example, reject(example, context.request, into.examples, analysis.kept), into)


def _write_call_first(
    decoder: Decoder,
    context: Context,
    analysis: Analysis,
    call_format: CallFormat,
    grammar: Grammar | None,
    config: Config,
    deadline: Deadline,
    author: Author,
    into: Synthesis,
) -> None:
    request, settings = context.request, config.augmentation
    count = settings.examples * settings.attempts
    unclear: list[Example] = []
    limit = config.decoding.max_new_tokens
    for example in call_first.write_examples(author, request, analysis, count):
        exempt = call_first.ungroundable(example, request)
        reason = reject(example, request, into.examples, exempt)
        if reason is None and any(exempt):
            unclear.append(example)
        elif reason is not None or len(into.examples) < settings.examples:
            _file(example, reason, into)
    missing = settings.examples - len(into.examples)
    if unclear and missing > 0:
        held = call_first.round_trip(
            decoder, context, unclear, call_format, grammar, limit, deadline
        )
        for example, same in zip(unclear, held, strict=True):
            reason = None if same else "asked this, the model makes another call"
            if reason or len(into.examples) < settings.examples:
                _file(example, reason, into)
    if into.examples and len(request.tools) > 1 and len(analysis.calls) == 1:
        _write_rival(decoder, context, analysis, call_format, author, into)


def _write_rival(
    decoder: Decoder,
    context: Context,
    analysis: Analysis,
    call_format: CallFormat,
    author: Author,
    into: Synthesis,
) -> None:
    names = [tool.name for tool in context.request.tools]
    scores = name_log_probs(decoder, context, list(context.turn), names, call_format)
    candidates = list(map(Candidate, names, scores))
    own = analysis.calls[0].name
    rival = context.request.tool(
        call_first.rival_of(candidates, rss.relative_softmax(scores), own) or ""
    )
    if rival is None:
        return
    made = call_first.rival_example(author, decoder, context, rival, into.examples, call_format)
    if isinstance(made, Rejected):
        into.rejected.append(made)
    elif made is not None:
        into.examples.append(made)


def _file(example: Example, reason: str | None, into: Synthesis) -> None:
    if reason is None:
        into.examples.append(example)
    else:
        into.rejected.append(Rejected(example, reason))
