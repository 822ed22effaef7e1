"""Call-first synthesis: first the answer, then the question it answers.

The model fills fresh argument values under the tool's schema, then writes the request that the
call answers, in the style of the user's own. A *rival* tool, which the model also considered,
gets an example only beside one of the draft's own tool, and only if the model itself, asked the
new request, prefers the rival: untested, rivals were taught and won.

Where the schema states a format, the request says the value in words (`March 25th, 2023` for
`2023-03-25`): writing words from the formatted value is the easy direction, and what practice
then teaches is the other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quickstudy import toolcalls
from quickstudy.augmentation.author import Author
from quickstudy.augmentation.substitution import Analysis
from quickstudy.augmentation.verify import reject
from quickstudy.awareness.names import name_log_probs
from quickstudy.decoding import Ask, Deadline, Decoder
from quickstudy.grounding import kinds
from quickstudy.grounding.ground import Status, ground_all
from quickstudy.grounding.phrases import Schema, items_of, schema_of
from quickstudy.model import Context
from quickstudy.toolcalls import CallFormat, Grammar
from quickstudy.types import Candidate, Example, Message, Rejected, Request, Tool, ToolCall

RIVAL_MASS = 0.2  # of RSS over names; below it the model did not really consider the rival


def write_examples(
    author: Author, request: Request, analysis: Analysis, count: int
) -> list[Example]:
    """Writes `count` unverified examples with as many calls as the draft has."""
    tools = {tool.name: tool for tool in request.tools}
    own = analysis.calls[0]
    own_request = request.messages[-1].content or request.user_text
    calls = [call for _ in range(count) for call in analysis.calls]
    filled = author.arguments(
        [(tools[call.name], list(call.arguments), _avoid(analysis)) for call in calls]
    )
    fresh = [ToolCall(call.name, values) for call, values in zip(calls, filled, strict=True)]
    told = [_in_words(call, tools[call.name], request.user_text) for call in fresh]
    sentences = author.requests(told, tools, _as_said(own, tools[own.name], request), own_request)
    size = len(analysis.calls)
    system = tuple(m for m in request.messages if m.role == "system")
    return [
        Example(
            (*system, Message("user", " ".join(sentences[i : i + size]))),
            tuple(fresh[i : i + size]),
            "call-first",
        )
        for i in range(0, len(fresh), size)
    ]


def round_trip(
    decoder: Decoder,
    context: Context,
    examples: Sequence[Example],
    call_format: CallFormat,
    grammar: Grammar | None,
    max_new_tokens: int,
    deadline: Deadline,
) -> list[bool]:
    """Whether the model, asked each new request, makes the same calls.

    Only for examples with values that cannot be grounded in words (booleans, codes, lists).
    """
    turns = [decoder.model.turn(context, e.messages, call_format) for e in examples]
    answers = decoder.decode(
        context.prefix,
        [Ask(turn or context.turn, grammar) for turn in turns],
        max_new_tokens=max_new_tokens,
        deadline=deadline,
    )
    tools = context.request.tools
    return [
        turn is not None
        and toolcalls.equal(toolcalls.read(a.text, tools)[0].tool_calls, e.tool_calls, tools)
        for turn, a, e in zip(turns, answers, examples, strict=True)
    ]


def ungroundable(example: Example, request: Request) -> list[set[str]]:
    """For each call, the arguments whose truth words cannot show but a round trip can."""
    exempt = []
    for call in example.tool_calls:
        tool = request.tool(call.name)
        found = ground_all(call.arguments, tool.properties if tool else {}, example.user_text)
        exempt.append({name for name, g in found.items() if g.status is Status.UNCLEAR})
    return exempt


def rival_of(candidates: Sequence[Candidate], shares: Sequence[float], own: str) -> str | None:
    """The likeliest other tool, if RSS over names gives it real mass."""
    rivals = [
        (share, candidate.text)
        for share, candidate in zip(shares, candidates, strict=True)
        if candidate.text != own
    ]
    share, name = max(rivals, default=(0.0, ""))
    return name if share >= RIVAL_MASS else None


def rival_example(
    author: Author,
    decoder: Decoder,
    context: Context,
    rival: Tool,
    beside: Sequence[Example],
    call_format: CallFormat,
) -> Example | Rejected:
    """One example of a rival tool, verified or rejected."""
    request = context.request
    wanted = [name for name in rival.properties if name in rival.required]
    analysis = Analysis((), ({},), (ToolCall(rival.name, dict.fromkeys(wanted)),))
    (example,) = write_examples(author, request, analysis, 1)
    reason = reject(example, request, beside)
    turn = decoder.model.turn(context, example.messages, call_format)
    if reason is None and turn is not None:
        listed = [tool.name for tool in request.tools]
        scores = name_log_probs(decoder, context, turn, listed, call_format)
        preferred = listed[scores.index(max(scores))]
        if preferred != rival.name:
            reason = f"asked this, the model itself prefers {preferred}"
    return example if reason is None else Rejected(example, reason)


def _in_words(call: ToolCall, tool: Tool, own_text: str) -> ToolCall:
    """The call with values of a stated format said in words, in the style of the user's own."""
    said = {
        name: _said(value, schema_of(tool.properties, name), own_text)
        for name, value in call.arguments.items()
    }
    return ToolCall(call.name, said)


def _said(value: Any, schema: Schema, own_text: str) -> Any:
    if isinstance(value, list):
        return [_said(item, items_of(schema), own_text) for item in value]
    wanted = kinds.wanted(schema)
    if wanted is None or wanted[1] not in wanted[0].formats_of(value, wanted[1]):
        return value
    kind, format = wanted
    told = (phrase for phrase in kind.find(own_text) if kind.write(phrase, format) is not None)
    return kind.spoken(value, format, next(told, None)) or value


def _as_said(own: ToolCall, tool: Tool, request: Request) -> ToolCall:
    """The draft's call with the user's words for what it rewrites: what the model shall imitate."""
    found = ground_all(own.arguments, tool.properties, request.user_text)
    said = {name: g.surface for name, g in found.items() if g.phrase is not None}
    return ToolCall(own.name, {**own.arguments, **said})


def _avoid(analysis: Analysis) -> str:
    values = [str(v) for call in analysis.calls for v in call.arguments.values() if v is not None]
    return "; ".join(values) or "nothing"
