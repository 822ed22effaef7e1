"""When do two free-text answers say the same? Shared by awareness and by verification.

No model and no torch: sampled answers are compared as texts. In this order:

1. Both end in a number (`final_number`): by the number, and by the unit if both are no more than
   a number and a unit.
2. Both open with yes or no, or choose an option (`B`, `(B) Paris`): by that.
3. One is short (or says "the answer is ..."): its words must stand in the other.
4. Prose: by the share of words in common, and neither a number nor a "not" may differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from rapidfuzz import fuzz

ALIKE = 75  # rapidfuzz token_set_ratio of the content words of two pieces of prose, 0 to 100
SHORT = 4  # content words
# forty digits at most: longer ones are no answers, and slow to read
_NUMBER = r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,40})(?:\.[0-9]{1,40})?"
# no part of a version (1.2.3) or of a list (3,4)
_QUANTITY = re.compile(
    rf"(?<![\w.])(?<![0-9],)({_NUMBER})(?:\s*/\s*({_NUMBER}))?(?![0-9]|[.,][0-9])"
)
_BARE = re.compile(rf"\W*{_NUMBER}\s*([^\W\d_]+)\W*")
_MARKED = re.compile(r"\\boxed\{([^{}]*)\}|####[ \t]*(.+)|\banswer(?: is|:| =)[ \t]*(\S.*)", re.I)
_YES_NO = re.compile(r"\W*(yes|no)\b(?! one| idea)", re.IGNORECASE)
_OPTION = re.compile(r"\W*(?:option |choice )?\(?([A-J])(?:[).:](?=\s|\W|$)|\W*$)")
_NOT = frozenset("no not never none nobody nothing neither nor without cannot".split())
_STOP_WORDS = frozenset(
    "a an the is are was were be been it its this that these of in on at to and or for as by with"
    " from has have had there i you we they so".split()
)


def final_number(text: str) -> Fraction | None:
    """The number an answer comes to; None where its last sentence has none.

    A number marked as the answer (`#### 72`, `\\boxed{72}`, "the answer is 72") goes first.
    """
    marked = _marked(text)
    sentence = marked if marked is not None else _last_sentence(text)
    _, equals, after = sentence.rpartition("=")
    found = _quantities(after) if equals else []
    if found:
        return found[0]
    found = _quantities(sentence)
    return None if not found else found[0] if marked is not None else found[-1]


def same_answer(left: str, right: str) -> bool:
    """Whether two answers to one question come to the same."""
    numbers = final_number(left), final_number(right)
    left, right = _said(left), _said(right)
    if None not in numbers:
        return numbers[0] == numbers[1] and _units_agree(left, right)
    for choice in (_YES_NO, _OPTION):
        chosen = [match.group(1).lower() for t in (left, right) if (match := choice.match(t))]
        if len(chosen) == 2:
            return chosen[0] == chosen[1]
    words = content_words(left), content_words(right)
    negated = [_negated(some, text) for some, text in zip(words, (left, right), strict=True)]
    if negated[0] != negated[1]:
        return False
    few, many = sorted((set(words[0]), set(words[1])), key=len)
    if len(few) <= SHORT:
        return few <= many if few else _plain(left) == _plain(right)
    stated = sorted((set(_quantities(left)), set(_quantities(right))), key=len)
    alike = fuzz.token_set_ratio(" ".join(words[0]), " ".join(words[1]))
    return stated[0] <= stated[1] and alike >= ALIKE


def clusters(texts: Sequence[str]) -> list[list[int]]:
    """Groups answers that all agree with one another, as indices; the largest group first."""
    groups: list[list[int]] = []
    for index, text in enumerate(texts):
        for group in groups:
            if all(same_answer(text, texts[member]) for member in group):
                group.append(index)
                break
        else:
            groups.append([index])
    return sorted(groups, key=len, reverse=True)  # stable: of equal groups the earlier one first


def nearest(texts: Sequence[str]) -> int:
    """The index of the text most like all the others, the earliest of equals."""
    likeness = [sum(fuzz.ratio(text, other) for other in texts) for text in texts]
    return likeness.index(max(likeness))


def content_words(text: str) -> list[str]:
    """The words that carry the meaning, in lower case and in order."""
    return [word for word in _plain(text).split() if word not in _STOP_WORDS]


def _quantities(text: str) -> list[Fraction]:
    found = []
    plain = re.sub(r"(-?)[$€£]", r" \1", text.replace("−", "-"))
    for match in _QUANTITY.finditer(plain):
        above, below = (Fraction((part or "1").replace(",", "")) for part in match.groups())
        found.append(above / below if below else above)
    return found


def _units_agree(left: str, right: str) -> bool:
    units = [m.group(1).lower().rstrip("s") for t in (left, right) if (m := _BARE.fullmatch(t))]
    return len(units) < 2 or units[0] == units[1]


def _marked(text: str) -> str | None:
    """What the text itself calls its answer, the last time it does."""
    last = None
    for match in _MARKED.finditer(text):
        last = next(part for part in match.groups() if part is not None)
    return None if last is None else re.split(r"[.!?](?:\s|$)", last, maxsplit=1)[0].strip()


def _said(text: str) -> str:
    return _marked(text) or text.strip()


def _last_sentence(text: str) -> str:
    sentences = [s for s in re.split(r"\n|(?<=[.!?])\s", text) if re.search(r"\w", s)]
    return sentences[-1] if sentences else ""


def _negated(words: Sequence[str], text: str) -> bool:
    return bool(_NOT & set(words)) or "n't" in text.replace("’", "'").lower()


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
