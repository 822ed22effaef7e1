"""From a draft to a certainty: which candidates compete, and how they are scored.

* `margin` looks at the draft's least certain token: p1 - p2 among the tokens the grammar allowed.
  It costs nothing beyond the draft. It is RSS over two candidates (the draft and its best rival)
  if what follows the fork is certain in both.
* `rss-calls` forks the draft at its least certain tokens, completes each fork greedily and scores
  whole answers; forks that make the same calls are one candidate.
* `rss-names` scores the draft's opening with each listed tool's name; one forward pass. It sees
  neither arguments nor the decision to call at all.
"""

from __future__ import annotations

import math

import torch

from quickstudy.awareness import rss
from quickstudy.config import Config, DecodingConfig
from quickstudy.decoding import Ask, Deadline, Decoder, Draft, Generation
from quickstudy.model import Context
from quickstudy.toolcalls import CallFormat, Grammar, canonical, opening, read
from quickstudy.types import Candidate, Certainty


def assess(decoder: Decoder, draft: Draft, config: Config, deadline: Deadline) -> Certainty:
    """The certainty of a greedy draft, by the configured estimator."""
    context, said = draft.context, draft.generation
    if config.awareness.estimator == "margin":
        return token_margin(decoder, said)
    if config.awareness.estimator == "rss-names":
        return names(decoder, context, said)
    forks = config.awareness.forks
    return forked_calls(decoder, context, said, draft.grammar, forks, config.decoding, deadline)


def token_margin(decoder: Decoder, draft: Generation) -> Certainty:
    """p1 - p2 at the least certain token; candidates: the draft up to there, either way on."""
    if not draft.choices:
        return Certainty(1.0)
    least = min(draft.choices, key=lambda choice: choice.margin)
    before = draft.ids[: least.index]
    return Certainty(
        least.margin,
        tuple(
            Candidate(decoder.model.decode([*before, token]), log_prob)
            for token, log_prob in ((least.token, least.log_prob), (least.runner_up, least.rival))
        ),
    )


def forked_calls(
    decoder: Decoder,
    context: Context,
    draft: Generation,
    grammar: Grammar | None,
    forks: int,
    decoding: DecodingConfig,
    deadline: Deadline,
) -> Certainty:
    """RSS over the draft and the answers forked from it at its `forks` least certain tokens."""
    least = sorted(draft.choices, key=lambda choice: choice.margin)[:forks]
    asks = [
        Ask(context.turn, grammar, [*draft.ids[: choice.index], choice.runner_up])
        for choice in least
        if choice.runner_up not in decoder.model.eos_ids and math.isfinite(choice.rival)
    ]
    rivals = (
        decoder.decode(
            context.prefix, asks, max_new_tokens=decoding.max_new_tokens, deadline=deadline
        )
        if asks
        else []
    )
    # a fork's own probability counts only what it chose itself: add the draft's up to the fork
    scored = [(draft.text, draft.log_prob)]
    for ask, rival in zip(asks, rivals, strict=True):
        forked = next(c for c in least if [*draft.ids[: c.index], c.runner_up] == list(ask.given))
        shared = sum(c.log_prob for c in draft.choices if c.index < forked.index)
        scored.append((rival.text, shared + forked.rival + rival.log_prob))
    merged: dict[str, Candidate] = {}
    for text, log_prob in scored:
        calls = read(text, context.request.tools)[0].tool_calls
        key = canonical(calls, context.request.tools) if calls else text
        known = merged.get(key)
        total = (
            log_prob
            if known is None
            else float(torch.tensor([known.log_prob, log_prob]).logsumexp(0))
        )
        merged[key] = Candidate(known.text if known else text, total)
    candidates = tuple(merged.values())
    return Certainty(rss.certainty([c.log_prob for c in candidates]), candidates)


def names(decoder: Decoder, context: Context, draft: Generation) -> Certainty:
    """RSS over the listed tools' names in the draft's call format; 1 where it calls nothing."""
    call_format = read(draft.text, context.request.tools)[1]
    if call_format is None or len(context.request.tools) < 2:
        return Certainty(1.0)
    listed = [tool.name for tool in context.request.tools]
    log_probs = name_log_probs(decoder, context, list(context.turn), listed, call_format)
    candidates = tuple(map(Candidate, listed, log_probs))
    return Certainty(rss.certainty(log_probs), candidates)


@torch.no_grad()
def name_log_probs(
    decoder: Decoder,
    context: Context,
    turn: list[int],
    listed: list[str],
    call_format: CallFormat,
) -> list[float]:
    """log P of opening the answer to `turn` with each name, one batch over the shared prefix."""
    model = decoder.model
    told, mask = model.answer_log_probs(
        context.prefix.fork(len(listed)),
        [turn] * len(listed),
        [model.encode(opening(name, call_format)) for name in listed],
    )
    return [float(total) for total in (told * mask).sum(-1)]
