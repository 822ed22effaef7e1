"""Question-and-answer synthesis: a new question of the same kind, and its answer.

With tools (the paper's recipe): request and call are written at once (`write_calls`) and judged
by `verify.reject`, or, faithful to the paper, only by `malformed`.

Without tools (`write_plain`): first questions, then several sampled answers to each, as the
model answers the user. An answer is kept if it can be computed and is right, or if most of the
samples come to it and its own arithmetic holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rapidfuzz import fuzz

from quickstudy import toolcalls
from quickstudy.augmentation import arithmetic
from quickstudy.augmentation.author import Writer
from quickstudy.augmentation.verify import NEAR, REFUSAL, plain
from quickstudy.awareness.agreement import clusters, content_words, final_number, nearest
from quickstudy.prompts import dialogue
from quickstudy.types import Example, Message, Rejected, Request

SOURCE = "question-answer"
_LABEL = re.compile(r"^\W*(?:new )?(?:question|request|q)\W*:\W*", re.IGNORECASE)
_UNFINISHED = 30  # words; a text this long that ends within a sentence was cut off


def write_calls(writer: Writer, request: Request, count: int) -> list[Example]:
    """Asks for `count` new requests, each with the call that answers it; unverified."""
    schema = {
        "type": "object",
        "properties": {
            "request": {"type": "string"},
            "name": {"enum": [tool.name for tool in request.tools]},
            "arguments": {"type": "object"},
        },
        "required": ["request", "name", "arguments"],
        "additionalProperties": False,
    }
    asked = dialogue(SOURCE.replace("-", "_"), tools=request.tools, own=_own(request))
    texts = writer.write([asked] * count, [schema] * count, 192)
    return [read_call(text, request) for text in texts]


def read_call(text: str, request: Request) -> Example:
    """Reads request and call out of whatever was written. Never raises.

    What holds no request is kept whole as one, so that the record shows it.
    """
    for found in _objects(text):
        said = next(
            (found[k] for k in ("request", "question", "query") if isinstance(found.get(k), str)),
            None,
        )
        if said is not None:
            calls = [found, *(part for part in found.values() if isinstance(part, dict | list))]
            read = (toolcalls.read(json.dumps(part), request.tools)[0] for part in calls)
            return _example(request, said, next((r.tool_calls for r in read if r.tool_calls), ()))
    reply, _ = toolcalls.read(text, request.tools)
    return _example(request, _LABEL.sub("", reply.content), reply.tool_calls)


def malformed(example: Example, request: Request) -> str | None:
    """What is wrong with the form of a request and its calls; nothing else is judged."""
    if not example.tool_calls or not example.user_text.strip():
        return "it asks nothing or calls nothing"
    wrong = (toolcalls.problem(call, request.tools) for call in example.tool_calls)
    return next((f"its call is not valid: {reason}" for reason in wrong if reason), None)


def write_plain(
    writer: Writer,
    request: Request,
    *,
    examples: int,
    attempts: int,
    samples: int,
    max_new_tokens: int,
) -> Iterator[Example | Rejected]:
    """Yields at most `examples` verified plain questions with answers, and all rejected ones.

    Args:
        attempts: questions written per example wanted.
        samples: answers sampled to each question; 3 or more for a majority to mean something.
        max_new_tokens: of an answer.
    """
    asked: list[Example] = []
    for question in questions(writer, request, examples * attempts):
        example = _example(request, question, ())
        reason = reject_question(question, _own(request), [other.user_text for other in asked])
        if reason is None:
            asked.append(example)
        else:
            yield Rejected(example, reason)
    kept = 0
    for judged in verify_by_agreement(writer, asked, samples, max_new_tokens):
        if isinstance(judged, Rejected) or kept < examples:
            kept += isinstance(judged, Example)
            yield judged


def questions(writer: Writer, request: Request, count: int) -> list[str]:
    """Asks for `count` questions like the user's, as one batch; unverified."""
    own = re.sub(r"\n\s*\n", "\n", _own(request))
    stop = "\n\n" if "\n" in own else "\n"
    limit = min(max(48, len(own) // 2), 256)  # about twice the tokens of the user's question
    asked = dialogue("question", own=own)
    written = writer.write([asked] * count, [None] * count, limit, stop)
    return [_only_question(text, own) for text in written]


def reject_question(question: str, own: str, accepted: Sequence[str]) -> str | None:
    """The first reason not to ask a new question; None to ask it."""
    if len(question.split()) < 2 or (own.endswith("?") and "?" not in question):
        return "it asks nothing"
    if REFUSAL.search(question):
        return "it is a refusal"
    if _digits(own) and not _digits(question):
        return "it leaves out the numbers"
    if _near(question, own):
        return "it copies the user's question"
    if any(_near(question, other) for other in accepted):
        return "it is nearly another example"
    return None


def verify_by_agreement(
    writer: Writer, asked: Sequence[Example], samples: int, max_new_tokens: int
) -> list[Example | Rejected]:
    """Answers each example's question `samples` times, all as one batch, and judges it."""
    dialogues = [example.messages for example in asked for _ in range(samples)]
    if not dialogues:
        return []
    texts = writer.write(dialogues, [None] * len(dialogues), max_new_tokens, None)
    return [
        judge(example, texts[i * samples : (i + 1) * samples]) for i, example in enumerate(asked)
    ]


def judge(example: Example, answers: Sequence[str]) -> Example | Rejected:
    """The example with the answer to learn, out of those sampled to its question."""
    question = example.messages[-1].content
    good = [text for text in map(_tidy, answers) if _flaw(text, question) is None]
    expression = arithmetic.asked(question)
    if expression is not None:
        return replace(example, content=_computed(expression, good))
    if not good:
        told = replace(example, content=answers[0] if answers else "")
        return Rejected(told, _flaw(_tidy(told.content), question) or "it has no answer")
    largest = [good[i] for i in clusters(good)[0]]
    best = replace(example, content=largest[nearest(largest)])
    if 2 * len(largest) <= len(answers):
        return Rejected(best, f"{len(largest)} of {len(answers)} answers agree")
    sound = [text for text in largest if arithmetic.problem(text) is None]
    if not sound:
        return Rejected(best, f"its answer is wrong: {arithmetic.problem(best.content)}")
    return replace(example, content=sound[nearest(sound)])


def _computed(expression: str, answers: Sequence[str]) -> str:
    """The sampled answer that is right and most like the other right ones, or the sum itself."""
    value = arithmetic.evaluate(expression)
    assert value is not None  # `arithmetic.asked` has computed it
    finals = [(text, final_number(text)) for text in answers]
    right = [
        text
        for text, final in finals
        if final is not None and arithmetic.equal(final, value) and arithmetic.problem(text) is None
    ]
    return right[nearest(right)] if right else arithmetic.written(expression, value)


def _flaw(answer: str, question: str) -> str | None:
    if not answer:
        return "its answer is empty"
    if REFUSAL.search(answer):
        return "its answer is a refusal"
    if len(answer.split()) >= _UNFINISHED and (answer[-1].isalpha() or answer[-1] in ",;:-+*=/("):
        return "its answer is cut off"
    if fuzz.ratio(plain(answer), plain(question)) >= NEAR:
        return "its answer repeats the question"
    return None


def _near(one: str, other: str) -> bool:
    """Whether two questions are the same but for wording: other numbers make another question."""
    left, right = content_words(one), content_words(other)
    if not _digits(one) ^ _digits(other):
        few, many = sorted((set(left), set(right)), key=len)
        return few <= many or fuzz.ratio(" ".join(left), " ".join(right)) >= NEAR
    return False


def _digits(text: str) -> set[str]:
    return set(re.findall(r"\d+", text))


def _only_question(text: str, own: str) -> str:
    """Without a label before it, quotes around it and an answer after it."""
    text = _LABEL.sub("", _tidy(text)).strip().strip('"')
    if own.endswith("?") and "?" in text:
        return text[: text.rindex("?") + 1]
    return text


def _example(request: Request, said: str, calls: Any) -> Example:
    system = tuple(message for message in request.messages if message.role == "system")
    return Example((*system, Message("user", _tidy(said))), tuple(calls), SOURCE)


def _own(request: Request) -> str:
    said = [message.content for message in request.messages if message.role == "user"]
    return (said[-1] if said else request.user_text).strip()


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects in a text that are in no other one."""
    decoder, position = json.JSONDecoder(), 0
    while (position := text.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            position += 1
            continue
        yield value


def _tidy(text: str) -> str:
    # half a surrogate pair, which JSON can spell and UTF-8 cannot, becomes "?"
    return text.encode("utf-8", "replace").decode("utf-8").strip()
