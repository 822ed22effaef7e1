"""Which tool a request is about, read from both sides: a noisy channel over the tools.

A small model that reads a request opens its call with whatever name is near. Asked the other way
round, how likely the request is from someone who needs a tool, the same model tells near tools
apart better. By Bayes' rule both are evidence on one question, and their sum decides (noisy channel
models: Min et al. 2022, arXiv 2108.04106):

    score(tool) = log P(the answer opens a call of it | request) + WEIGHT * log P(request | tool)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from quickstudy import toolcalls
from quickstudy.awareness.kinds import choice_kinds
from quickstudy.awareness.names import name_log_probs
from quickstudy.awareness.scoring import given_log_probs
from quickstudy.decoding import Ask, Deadline, Decoder, Draft
from quickstudy.grounding.ground import Status, ground_all
from quickstudy.model import start
from quickstudy.prompts import dialogue
from quickstudy.types import Message, Request, Tool

# Chosen on training rows 0:100 with twelve near tools listed; 0.1 to 1 do alike there.
WEIGHT = 0.3
SURE = 0.8  # margin of the least certain token of the draft's name; above it nothing is weighed
# Nats. Of training rows 0:100 70 % are above it, and 20 % with the right tool taken off the list,
# among tools so near that many of them serve.
FITS = 22.0
MOST = 6  # tools weighed: those that the model would open a call of most likely
ROWS = 16  # tools in one pass: each row holds the whole prompt's keys and values
LEAST = 64  # tokens that a second draft may have at least; else twice those of the first
READ = 192  # tokens of the request that are scored, its last ones
_ANYBODY = Tool(
    "anything",
    "Any request a user might have.",
    {"type": "object", "properties": {"anything": {}}, "required": ["anything"]},
)


def second_draft(decoder: Decoder, draft: Draft, max_new_tokens: int, deadline: Deadline) -> Draft:
    """The draft, unless another tool fits its request better: then one call of that tool.

    That is decoded greedily with no other tool allowed; where it gives no valid call, the draft
    stays. So do drafts of several calls, and those that are sure of the name of a listed tool.
    A draft that calls nothing gives way only if the request is far likelier under the tool than
    under none, and none gives way to a call that must invent more.

    Raises:
        BudgetSpent: if the deadline passes.
    """
    calls, request = draft.reply.tool_calls, draft.context.request
    # after a tool's result no user's words tell which tool is next
    asked = request.messages[-1].role == "user" and _said(request).strip()
    if not asked or not request.tools or len(calls) > 1:
        return draft
    listed = calls and request.tool(calls[0].name)
    if listed and (len(request.tools) == 1 or name_margin(decoder, draft) >= SURE):
        return draft
    tool = likeliest(decoder, draft, deadline)
    if calls and tool.name == calls[0].name:
        return draft
    deadline.check()
    if not calls and fit(decoder, _said(request), tool) < FITS:
        return draft
    second = _call_of(tool, decoder, draft, max_new_tokens, deadline)
    if listed and _invented(second) > _invented(draft):
        return draft
    return second


def name_margin(decoder: Decoder, draft: Draft) -> float:
    """The smallest margin of the draft's choices among its tool's name; 1 where it had none."""
    kinds = choice_kinds(decoder.model.decode, draft.generation, draft.reply.tool_calls)
    choices = zip(draft.generation.choices, kinds, strict=True)
    return min((choice.margin for choice, kind in choices if kind == "tool_name"), default=1.0)


def fit(decoder: Decoder, said: str, tool: Tool) -> float:
    """How many nats likelier what the user said is from one who needs the tool than from any."""
    needed, anyway = need_log_probs(decoder, said, [tool, _ANYBODY])
    return needed - anyway


def speaking(decoder: Decoder, draft: Draft) -> Draft:
    """The draft; where it calls nothing, with the call format that the model would open."""
    context, formats = draft.context, decoder.model.call_formats
    if draft.call_format is not None or not context.request.tools:
        return draft
    name = context.request.tools[0].name
    openings = [decoder.model.encode(toolcalls.opening(name, how)) for how in formats]
    told = given_log_probs(decoder.model, context, context.turn, openings)
    scores = [float(row.sum()) for row in told]
    return replace(draft, call_format=formats[scores.index(max(scores))])


def likeliest(decoder: Decoder, draft: Draft, deadline: Deadline) -> Tool:
    """The listed tool of the highest score, given the draft's request and call format."""
    context = draft.context
    tools = list(context.request.tools)
    call_format = speaking(decoder, draft).call_format
    assert call_format is not None  # there are tools
    names = [tool.name for tool in tools]
    opened: list[float] = []
    for first in range(0, len(names), ROWS):
        deadline.check()
        some = names[first : first + ROWS]
        opened += name_log_probs(decoder, context, list(context.turn), some, call_format)
    best = sorted(range(len(tools)), key=lambda i: -opened[i])[:MOST]
    deadline.check()
    needed = need_log_probs(decoder, _said(context.request), [tools[i] for i in best])
    scores = [opened[i] + WEIGHT * need for i, need in zip(best, needed, strict=True)]
    return tools[best[scores.index(max(scores))]]


@torch.no_grad()
def need_log_probs(decoder: Decoder, said: str, tools: Sequence[Tool]) -> list[float]:
    """log P(what the user said | they need the tool), in nats, for each tool."""
    model = decoder.model
    asked = [model.render(_need(tool), ()) for tool in tools]
    another = model.render([*_need(tools[0])[:-1], Message("user", "?")], ())
    prefix = decoder.fixed_prefix([*asked, another])
    turns = [ids[len(prefix.ids) :] for ids in asked]
    answer = model.encode(said)[-READ:]
    rows = len(tools)
    told, real = model.answer_log_probs(start([prefix] * rows), turns, [answer] * rows)
    return [float(row[mask].sum()) for row, mask in zip(told, real, strict=True)]


def _invented(draft: Draft) -> int:
    """How many required arguments of the calls have values that the request does not state."""
    request, count = draft.context.request, 0
    for call in draft.reply.tool_calls:
        tool = request.tool(call.name)
        if tool is not None:
            found = ground_all(call.arguments, tool.properties, request.user_text)
            count += sum(found[n].status is Status.INVENTED for n in tool.required if n in found)
    return count


def _said(request: Request) -> str:
    return "\n".join(m.content for m in request.messages if m.role == "user")


def _need(tool: Tool) -> list[Message]:
    takes = [name for name in tool.properties if name in tool.required] or list(tool.properties)[:2]
    described = tool.description.strip()
    if described and described[-1] not in ".!?":
        described += "."
    return dialogue(
        "need", name=tool.name, description=described, takes=", ".join(takes) or "nothing"
    )


def _call_of(
    tool: Tool, decoder: Decoder, draft: Draft, max_new_tokens: int, deadline: Deadline
) -> Draft:
    context = draft.context
    rules = decoder.rules([tool], context.thinking, draft.call_format, must_call=True)
    if decoder.refusal(rules):
        return draft
    # a call that grows far longer than the draft is rambling, and cut off it is none
    usual = max(LEAST, 2 * len(draft.generation.ids))
    (said,) = decoder.decode(
        context.prefix,
        [Ask(context.turn, rules, likely=(*draft.generation.ids, *context.turn))],
        max_new_tokens=min(max_new_tokens, usual),
        deadline=deadline,
    )
    reply, call_format = toolcalls.read(said.text, [tool])
    if [toolcalls.problem(call, [tool]) for call in reply.tool_calls] != [None]:
        return draft
    return replace(draft, generation=said, reply=reply, call_format=call_format)
