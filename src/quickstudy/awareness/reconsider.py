"""What an unsure draft gives way to: another tool, a call at all, fewer guesses, or a question.

Which tool a request is about is read from both sides, a noisy channel over the tools. A small model
that reads a request opens its call with whatever name is near. Asked the other way round, how
likely the request is from someone who needs a tool, the same model tells near tools apart better.
By Bayes' rule both are evidence on one question, and their sum decides (noisy channel models: Min
et al. 2022, arXiv 2108.04106):

    score(tool) = log P(the answer opens a call of it | request) + WEIGHT * log P(request | tool)

Whether a call is due is read from its values. Where words are all that a small model has for "It's
kim_h, and the password is tulip77", and a call of a likely tool finds what it requires in the
conversation, the call is meant. Where a call makes up a value that it requires, one that nobody has
stated and the model is not sure of, it is not the time for it: what is missing is asked for. What
it makes up where nothing is required is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from quickstudy import toolcalls
from quickstudy.augmentation.substitution import droppable
from quickstudy.awareness.kinds import choice_kinds, choice_span, value_span
from quickstudy.awareness.names import name_log_probs
from quickstudy.awareness.scoring import given_log_probs
from quickstudy.decoding import Ask, Deadline, Decoder, Draft
from quickstudy.grounding.ground import Status, ground_all, ground_call, lacking, stands, unfounded
from quickstudy.grounding.phrases import schema_of
from quickstudy.model import start
from quickstudy.prompts import dialogue
from quickstudy.types import Message, Request, Tool, ToolCall

# Chosen on training rows 0:100 with twelve near tools listed; 0.1 to 1 do alike there.
WEIGHT = 0.3
SURE = 0.8  # margin of the least certain token of the draft's name; above it nothing is weighed
# Nats. Of training rows 0:100 70 % are above it, and 20 % with the right tool taken off the list,
# among tools so near that many of them serve.
FITS = 22.0
MOST = 6  # tools weighed: those that the model would open a call of most likely
ROWS = 16  # tools in one pass: each row holds the whole prompt's keys and values
LEAST = 64  # tokens that a second draft may have at least; else twice those of the first
LONG = 160  # ... and at most, where the first is words
GUESSED = 0.5  # margin of the least certain token of a value; above it the model has inferred it
NEED = "I still need"
_FILLER = re.compile(r"\byour[ _]|_here\b|example|placeholder|12345|\.\.\.", re.I)
_NOT = re.compile(r"n['’]t\b|\b(?:not|never)\b|\bif (?:I|we)\b", re.I)
# Where the draft is words: so many tools are tried, of scores so near (nats) to the best. Chosen
# on dialogues of our own (benchmarks/dialogues.jsonl).
TRIED, NEAR = 3, 5.0
READ = 192  # tokens of the request that are scored, its last ones
_ANYBODY = Tool(
    "anything",
    "Any request a user might have.",
    {"type": "object", "properties": {"anything": {}}, "required": ["anything"]},
)


def second_draft(decoder: Decoder, draft: Draft, max_new_tokens: int, deadline: Deadline) -> Draft:
    """What the draft gives way to; often itself.

    Drafts of several calls stay, and all that follows a tool's result: no user's words tell what is
    next. A second draft is decoded greedily; where that gives no valid call, the draft stays.

    Raises:
        BudgetSpent: if the deadline passes.
    """
    calls, request = draft.reply.tool_calls, draft.context.request
    role = request.messages[-1].role
    if not request.tools or role == "tool" or len(calls) > 1 or not _said(request).strip():
        return draft
    if not calls:
        return _called(decoder, draft, max_new_tokens, deadline)
    if role == "user":
        draft = _better(decoder, draft, max_new_tokens, deadline)
    return _asked(decoder, _without_guesses(decoder, draft))


def _better(decoder: Decoder, draft: Draft, max_new_tokens: int, deadline: Deadline) -> Draft:
    """The draft, unless another tool fits its request better: then one call of that tool.

    Drafts that are sure of the name of a listed tool stay, and none gives way to a call that must
    invent more.
    """
    request, (call,) = draft.context.request, draft.reply.tool_calls
    listed = request.tool(call.name) is not None
    if listed and (len(request.tools) == 1 or name_margin(decoder, draft) >= SURE):
        return draft
    tool, _ = ranked(decoder, draft, deadline)[0]
    if tool.name == call.name:
        return draft
    deadline.check()
    # a call that grows far longer than the draft is rambling, and cut off it is none
    most = min(max_new_tokens, max(LEAST, 2 * len(draft.generation.ids)))
    (second,) = _calls_of([tool], decoder, draft, most, deadline)
    if second is None or (listed and _lacks(second) > _lacks(draft)):
        return draft
    return second


def _called(decoder: Decoder, draft: Draft, max_new_tokens: int, deadline: Deadline) -> Draft:
    """The words, unless a likely tool finds what it requires in the conversation.

    Something of it has to stand in the user's last message, or the whole of that has to be far
    likelier under the tool than under none; that message must not say what not to do, and a call
    that was made before is not made again.
    """
    request = draft.context.request
    said = _said(request)
    if _NOT.search(said):
        return draft
    made = [call for message in request.messages for call in message.tool_calls]
    scored = ranked(decoder, draft, deadline)[:TRIED]
    tools = [tool for tool, score in scored if score >= scored[0][1] - NEAR]
    deadline.check()
    most = min(max_new_tokens, LONG)
    for tool, second in zip(tools, _calls_of(tools, decoder, draft, most, deadline), strict=True):
        if second is None:
            continue
        (call,) = second.reply.tool_calls
        if not _has_all(call, tool, request) or any(
            toolcalls.equal([call], [before], [tool]) for before in made
        ):
            continue
        found = ground_all(call.arguments, tool.properties, said)
        if any(of.there for of in found.values()) or fit(decoder, said, tool) >= FITS:
            return second
    return draft


def _has_all(call: ToolCall, tool: Tool, request: Request) -> bool:
    """Whether what the tool requires was said, in whatever words: figures and codes as they are."""
    found = ground_call(call, tool, request)
    for name in tool.required & found.keys():
        value, schema = call.arguments[name], schema_of(tool.properties, name)
        figures = not isinstance(value, bool | list | dict) and re.search(r"\d", str(value))
        loose = found[name].status is Status.UNCLEAR and not figures
        if not (found[name].there or loose or stands(value, schema, request.others_text)):
            return False
    return True


def _without_guesses(decoder: Decoder, draft: Draft) -> Draft:
    """The draft without optional values that nothing speaks for and it is not sure of.

    All of it stays where the schema does not tell what is required, and where the call would not
    be valid without them.
    """
    request, (call,) = draft.context.request, draft.reply.tool_calls
    tool = request.tool(call.name)
    if tool is None or not tool.required:
        return draft
    found = ground_call(call, tool, request)
    guesses = {
        name
        for name, value in call.arguments.items()
        if droppable(name, tool)
        and unfounded(name, value, found[name], request)
        and not stands(value, schema_of(tool.properties, name), request.others_text)
        and value_margin(decoder, draft, name) < GUESSED
    }
    if not guesses:
        return draft
    rest = {name: value for name, value in call.arguments.items() if name not in guesses}
    less = ToolCall(call.name, rest)
    if toolcalls.problem(less, request.tools) and not toolcalls.problem(call, request.tools):
        return draft
    return replace(draft, reply=replace(draft.reply, tool_calls=(less,)))


def _asked(decoder: Decoder, draft: Draft) -> Draft:
    """The draft; a question in its place if its call makes up what it requires.

    Asked is once, and not for what the model is sure of: that may be inferred.
    """
    request, (call,) = draft.context.request, draft.reply.tool_calls
    tool = request.tool(call.name)
    if tool is None or request.must_call or any(NEED in m.content for m in request.messages):
        return draft
    missing = [
        name
        for name in lacking(call, request)
        if _FILLER.search(str(call.arguments[name])) or value_margin(decoder, draft, name) < GUESSED
    ]
    if not missing:
        return draft
    told = []
    for name in missing:
        about = tool.properties.get(name)
        meaning = str(about.get("description", "")) if isinstance(about, Mapping) else ""
        meaning = re.split(r"[.,:;(\n]", meaning)[0].strip()
        told.append(f"{name} ({meaning})" if meaning else name)
    question = f"To call {call.name} {NEED}: {', '.join(told)}."
    return replace(draft, reply=replace(draft.reply, content=question, tool_calls=()))


def value_margin(decoder: Decoder, draft: Draft, name: str) -> float:
    """The smallest margin of the draft's choices in an argument's value; 1 where it had none."""
    (call,), decode, generation = draft.reply.tool_calls, decoder.model.decode, draft.generation
    span = value_span(decode(generation.ids), call, name)
    if span is None:
        return 1.0
    margins = []
    for choice in generation.choices:
        begin, end = choice_span(decode, generation, choice)
        if begin < span[1] and end > span[0]:
            margins.append(choice.margin)
    return min(margins, default=1.0)


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


def ranked(decoder: Decoder, draft: Draft, deadline: Deadline) -> list[tuple[Tool, float]]:
    """The tools weighed and their scores in nats, the highest first."""
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
    scores = [(opened[i] + WEIGHT * need, i) for i, need in zip(best, needed, strict=True)]
    scores.sort(key=lambda scored: -scored[0])  # stable
    return [(tools[i], score) for score, i in scores]


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


def _lacks(draft: Draft) -> int:
    """How many values that its calls require nobody has stated."""
    return sum(len(lacking(call, draft.context.request)) for call in draft.reply.tool_calls)


def _said(request: Request) -> str:
    """The user's last message."""
    return next((m.content for m in reversed(request.messages) if m.role == "user"), "")


def _need(tool: Tool) -> list[Message]:
    takes = [name for name in tool.properties if name in tool.required] or list(tool.properties)[:2]
    described = tool.description.strip()
    if described and described[-1] not in ".!?":
        described += "."
    return dialogue(
        "need", name=tool.name, description=described, takes=", ".join(takes) or "nothing"
    )


def _calls_of(
    tools: Sequence[Tool], decoder: Decoder, draft: Draft, max_new_tokens: int, deadline: Deadline
) -> list[Draft | None]:
    """One call of each tool, decoded side by side; None where it is not valid."""
    context = draft.context
    grammars = {
        tool.name: rules
        for tool in tools
        if not decoder.refusal(
            rules := decoder.rules([tool], context.thinking, draft.call_format, must_call=True)
        )
    }
    likely = (*draft.generation.ids, *context.turn)
    asks = [Ask(context.turn, rules, likely=likely) for rules in grammars.values()]
    said = decoder.decode(context.prefix, asks, max_new_tokens=max_new_tokens, deadline=deadline)
    drafts: dict[str, Draft] = {}
    for name, one in zip(grammars, said, strict=True):
        reply, call_format = toolcalls.read(one.text, context.request.tools)
        if [toolcalls.problem(call, context.request.tools) for call in reply.tool_calls] == [None]:
            drafts[name] = replace(draft, generation=one, reply=reply, call_format=call_format)
    return [drafts.get(tool.name) for tool in tools]
