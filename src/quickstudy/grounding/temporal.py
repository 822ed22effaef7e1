"""Dates and times in words and in codes: find them, compare them, write fresh ones alike.

`March 25th, 2023` in a request and `2023-03-25` in a call are the same day: this module knows
it, and can write another day in both styles. Phrases that depend on today ("tomorrow") are
found, so that a value near them is not called invented, but never rewritten. A kind as in
`phrases.py`; its formats are strftime's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from quickstudy.grounding.phrases import Phrase

Kind = Literal["date", "time", "month", "relative"]

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_HOURS = "twelve one two three four five six seven eight nine ten eleven".split()
_PARTS = {"half": 30, "quarter": 15, "five": 5, "ten": 10, "twenty": 20, "twenty-five": 25}
_HOUR_WORD = f"(?:{'|'.join(_HOURS)})"
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth"
    " fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first"
    " twenty-second twenty-third twenty-fourth twenty-fifth twenty-sixth twenty-seventh"
    " twenty-eighth twenty-ninth thirtieth thirty-first"
).split()
_ORDINAL = f"(?:{'|'.join(sorted(_ORDINALS, key=len, reverse=True))})"
_MINUTES = "(?:twenty-five|twenty|five|ten)(?: minutes)?"
_PART = r"(?: in the (?:morning|afternoon|evening)| at night)?"
_DAY = rf"(?:\d{{1,2}}(?:st|nd|rd|th)?|{_ORDINAL})"
_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("date", r"\d{4}-\d{2}-\d{2}|\d{4}/\d{2}/\d{2}|\d{1,2}[/.]\d{1,2}[/.]\d{4}"),
    ("date", rf"{_MONTH} {_DAY}(?:,? \d{{4}})?|(?:the )?{_DAY} (?:of )?{_MONTH}(?:,? \d{{4}})?"),
    ("time", r"\d{1,2}:\d{2}(?::\d{2})?(?: ?[ap]\.?m\b\.?)?|\d{1,2} ?[ap]\.?m\b\.?"),
    ("time", rf"(?:half|(?:a )?quarter|{_MINUTES}) (?:past|to) (?:{_HOUR_WORD}|\d{{1,2}}){_PART}"),
    ("time", rf"(?:{_HOUR_WORD}|\d{{1,2}}) o'clock{_PART}"),
    ("time", rf"(?:{_HOUR_WORD}|\d{{1,2}}) in the (?:morning|afternoon|evening)"),
    ("month", rf"{_MONTH},? \d{{4}}"),
    ("relative", r"today|tonight|tomorrow|yesterday|now|noon|midnight|morning|afternoon|evening"),
    ("relative", r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|weekend"),
    ("relative", r"(?:this|next|last|past|coming|\d+|few) (?:hour|day|week|month|quarter|year)s?"),
    ("relative", rf"{_MONTH}|(?:19|20)\d\d"),
)  # fmt: skip
_FIND = re.compile(
    "|".join(rf"(?P<{kind}{i}>(?<!\w)(?:{p})(?!\w))" for i, (kind, p) in enumerate(_PATTERNS)),
    re.IGNORECASE,
)
_DATE_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y",
    "%Y%m%d", "%Y-%m", "%m/%Y", "%B %Y", "%m-%d", "%d-%m", "%m/%d", "%d/%m",
    "%B %d, %Y", "%B %d", "%d %B %Y",
)  # fmt: skip
_TIME_FORMATS = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I %p", "%I:%M%p", "%I%p")
_SLASHED = re.compile(r"(\d{1,2})([/.])(\d{1,2})[/.](\d{4})")
_STATED = re.compile(
    r"(?:%[YmdHMSIpyBb][-/:., T]?)+"
    r"|(?:YYYY|DD|MM|HH|hh)(?:[-/.: T]*(?:YYYY|MM|DD|HH|hh|mm|SS|ss))+(?: ?(?:AM|PM|am|pm)\b)?"
)


@lru_cache(maxsize=256)
def _found(text: str) -> tuple[Phrase, ...]:
    phrases = []
    for match in _FIND.finditer(text):
        kind: Any = str(match.lastgroup).rstrip("0123456789")
        surface = match.group()
        moment = _moment(surface, kind)
        also = _twelve_hours_on(moment) if kind == "time" and _two_readings(surface) else None
        phrases.append(Phrase(surface, kind, moment, also))
    return tuple(phrases)


def find(text: str) -> list[Phrase]:
    """All dates and times in a text, left to right. Their meaning is a `datetime`."""
    return list(_found(text))


def stated_format(schema: Mapping[str, Any]) -> str | None:
    """The strftime format that a parameter's schema asks for, if it says so.

    Read from `format`, from a pattern in the description (`YYYY-MM-DD`, `%H:%M`), or from an
    example there that can be read one way only.
    """
    known = {"date": "%Y-%m-%d", "time": "%H:%M:%S", "date-time": "%Y-%m-%dT%H:%M:%S"}
    wanted = schema.get("format")
    if isinstance(wanted, str) and wanted in known:
        return known[wanted]
    description = str(schema.get("description", ""))
    stated = _STATED.search(description)
    if stated:
        format = _strftime(stated.group().rstrip(" ,.:-/"))
        return format if _readable(format) else None
    for phrase in find(description):
        if phrase.kind in ("date", "time") and phrase.surface[0].isdigit():
            formats = [f for f in (*_DATE_FORMATS, *_TIME_FORMATS) if _parses(phrase.surface, f)]
            if len(formats) == 1:
                return formats[0]
    return None


def formats_of(value: Any, stated: str | None) -> list[str]:
    if not isinstance(value, str):
        return []
    if stated and _parses(value, stated):
        return [stated]
    return [f for f in (*_DATE_FORMATS, *_TIME_FORMATS) if _parses(value, f)]


def tells(phrase: Phrase, format: str) -> bool:
    """Whether the phrase says all that the format asks: day or time, and the year if it wants one.

    A format of both day and time needs two phrases, so no single one tells it.
    """
    if phrase.meaning is None:
        return False
    day = any(code in format for code in ("%d", "%m", "%b", "%B", "%y", "%Y"))
    time = any(code in format for code in ("%H", "%I"))
    if any(code in format for code in ("%y", "%Y")) and not re.search(r"\d{4}", phrase.surface):
        return False
    if phrase.kind == "month" and any(code in format for code in ("%d", "%j")):
        return False
    kinds = ("date", "month") if day else ("time",)
    return day != time and phrase.kind in kinds


def says(value: Any, format: str, phrase: Phrase) -> bool:
    if not isinstance(value, str) or not tells(phrase, format) or not _parses(value, format):
        return False
    return write(phrase, format) == datetime.strptime(value, format).strftime(format)


def write(phrase: Phrase, format: str) -> str | None:
    return phrase.meaning.strftime(format) if tells(phrase, format) else None


def fresh(phrase: Phrase, rng: random.Random) -> Phrase | None:
    """Another moment of the same kind, and the phrase that tells it in the same style.

    The words are read again and must say one moment, another than before; None if no try does.
    """
    if phrase.meaning is None:
        return None
    literal = find(phrase.surface)[0].meaning == phrase.meaning
    for _ in range(20):
        try:
            again = _told(phrase, _other(phrase, rng))
        except OverflowError:  # at the end of the calendar
            continue
        # in the reading in which the phrase itself is taken
        readings = [] if again is None else list(again.readings())
        for reading in readings[:1] if literal else readings[1:]:
            if reading.meaning not in (None, phrase.meaning, phrase.also):
                return reading
    return None


def spoken(value: Any, format: str, like: Phrase | None) -> str | None:
    """The moment in the words of `like`, else as `March 25th, 2023` or `9:30 pm`."""
    if not isinstance(value, str) or not _parses(value, format):
        return None
    moment = datetime.strptime(value, format)
    default = [find(words)[0] for words in ("March 25th, 2023", "March 5th", "May 2023", "9:30 pm")]
    yearly = bool(re.search("%[Yy]", format))
    for style in (like, *default) if like is not None else default:
        exact = ("%d" in format) == (style.kind == "date")
        if exact and tells(style, format) and bool(re.search(r"\d{4}", style.surface)) == yearly:
            told = _told(style, moment)
            if told is not None and says(value, format, told):
                return told.surface
    return None


def _told(phrase: Phrase, moment: datetime) -> Phrase | None:
    """The phrase of this moment in the style of another; None if its words say more or less."""
    try:
        words = _like(phrase, moment)
    except (OverflowError, ValueError):  # at the ends of the calendar
        return None
    again = find(words)
    good = len(again) == 1 and again[0].surface == words and again[0].kind == phrase.kind
    return again[0] if good else None


def _other(phrase: Phrase, rng: random.Random) -> datetime:
    was: datetime = phrase.meaning
    if phrase.kind == "month":
        return (was + timedelta(days=31 * rng.randint(1, 30))).replace(day=1)
    if phrase.kind == "date":
        return was + timedelta(days=rng.randint(20, 330))
    if _in_words(phrase.surface):
        return was + timedelta(hours=rng.randint(1, 3))
    step = 60 if was.minute == 0 else 5
    return was + timedelta(minutes=step * rng.randint(1, 600 // step))


@lru_cache(maxsize=4096)  # dateparser takes 20 ms for a date, and a log has hundreds alike
def _moment(surface: str, kind: Kind) -> datetime | None:
    if kind == "relative":
        return None
    if kind == "time":
        return _time(surface)
    if kind == "month":
        month, _, year = surface.replace(",", "").rpartition(" ")
        return datetime(int(year), _MONTHS.index(month[:3].lower()) + 1, 1) if int(year) else None
    iso = re.fullmatch(r"(\d{4})[-/](\d\d)[-/](\d\d)", surface)
    if iso:
        try:
            return datetime(*map(int, iso.groups()))  # type: ignore[arg-type]
        except ValueError:
            return None
    order = "MDY"
    slashed = _SLASHED.fullmatch(surface)
    if slashed:
        first, second = int(slashed[1]), int(slashed[3])
        if first <= 12 and second <= 12 and first != second:
            return None  # day or month first: nobody can tell
        order = "DMY" if first > 12 else "MDY"

    def digits(match: re.Match[str]) -> str:
        return str(_ORDINALS.index(match.group().lower()) + 1)

    import dateparser  # it takes long to load

    return dateparser.parse(
        re.sub(_ORDINAL, digits, surface, flags=re.IGNORECASE),
        languages=["en"],
        settings={
            "DATE_ORDER": order,
            "REQUIRE_PARTS": ["day", "month"],
            "PREFER_DATES_FROM": "current_period",
        },
    )


def _time(surface: str) -> datetime | None:
    text = surface.lower().replace(".", "")
    part_of_hour = rf"(?:(half|quarter|{_MINUTES}) (past|to) )?"
    words = re.search(rf"{part_of_hour}({_HOUR_WORD}|\d{{1,2}})(?::(\d\d))?(?::(\d\d))?", text)
    if words is None:
        return None
    part, side, hour_text, minute, second = words.groups()
    hour = _HOURS.index(hour_text) or 12 if hour_text in _HOURS else int(hour_text)
    total = hour * 60 + int(minute or 0)
    total += _PARTS.get((part or "").removesuffix(" minutes"), 0) * (-1 if side == "to" else 1)
    late = re.search(r"\d ?pm\b|afternoon|evening|at night", text)
    if late and total < 720:
        total += 720
    if re.search(r"\d ?am\b|morning", text) and total >= 720:
        total -= 720
    if not 0 <= total < 1440 or int(minute or 0) > 59 or int(second or 0) > 59:
        return None
    return datetime(2000, 1, 1, total // 60, total % 60, int(second or 0))


def _two_readings(surface: str) -> bool:
    """Whether nothing says which half of the day: `half past nine`, `9:30`, not `09:30`."""
    if re.search(r"[ap]\.?m\b|morning|afternoon|evening|night", surface, re.IGNORECASE):
        return False
    hour = re.match(r"\d+(?=:)", surface)
    return hour is None or (surface[0] != "0" and int(hour.group()) <= 12)


def _twelve_hours_on(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(hour=(moment.hour + 12) % 24)


def _like(phrase: Phrase, moment: datetime) -> str:
    """The moment in the style of the phrase: same order, padding, month length, ordinals, clock."""
    surface = phrase.surface
    if phrase.kind == "time":
        return _clock_words(surface, moment) if _in_words(surface) else _clock(surface, moment)
    slashed = _SLASHED.fullmatch(surface)
    if slashed:
        first, sign, second, _ = slashed.groups()
        parts = (moment.day, moment.month) if int(first) > 12 else (moment.month, moment.day)
        width = 2 if len(first) == len(second) else 1
        return sign.join([*(f"{part:0{width}}" for part in parts), f"{moment:%Y}"])
    for format in ("%Y-%m-%d", "%Y/%m/%d"):
        if _parses(surface, format):
            return moment.strftime(format)

    def month(match: re.Match[str]) -> str:
        name = moment.strftime("%B")
        written = match.group().rstrip(".")
        return name[:3] if len(written) == 3 and written.lower() != "may" else name

    def day(match: re.Match[str]) -> str:
        return f"{moment.day}{_suffix(moment.day) if match.group(1) else ''}"

    text = re.sub(r"\d{4}", f"{moment:%Y}", surface)
    text = re.sub(_MONTH, month, text, flags=re.IGNORECASE)
    text = re.sub(_ORDINAL, _ORDINALS[moment.day - 1], text, flags=re.IGNORECASE)
    return re.sub(r"(?<!\d)\d{1,2}(?!\d)(st|nd|rd|th)?", day, text, flags=re.IGNORECASE)


def _in_words(surface: str) -> bool:
    return bool(re.search(r" past | to |o'clock| in the | at night", surface, re.IGNORECASE))


def _clock(surface: str, moment: datetime) -> str:
    """A clock time in digits: `9:30 a.m.`, `5PM`, `14:05:09`."""
    parts = re.fullmatch(r"(\d{1,2})(:\d\d)?(:\d\d)?( ?)([ap]\.?m\.?)?", surface, re.IGNORECASE)
    assert parts is not None  # it is what `find` finds
    hour, minute, second, gap, half = parts.groups()
    told = (moment.hour % 12 or 12) if half else moment.hour
    text = f"{told:0{2 if hour[0] == '0' or (len(hour) == 2 and not half) else 1}}"
    text += f":{moment:%M}" if minute or moment.minute else ""
    text += f":{moment:%S}" if second else ""
    if half:
        letter = moment.strftime("%p")[0]
        text += gap + (letter if half[0].isupper() else letter.lower()) + half[1:]
    return text


def _clock_words(surface: str, moment: datetime) -> str:
    hour = (moment.hour + (1 if " to " in surface.lower() else 0)) % 12

    def told(match: re.Match[str]) -> str:
        return match.group(1) + (str(hour or 12) if match.group(2).isdigit() else _HOURS[hour])

    hour_at = rf"( (?:past|to) |^)({_HOUR_WORD}|\d{{1,2}})\b(?! (?:past|to|minutes) )"
    text = re.sub(hour_at, told, surface, count=1, flags=re.IGNORECASE)
    part = "morning" if moment.hour < 12 else "afternoon" if moment.hour < 18 else "evening"
    return re.sub(r"in the \w+|at night", f"in the {part}", text, flags=re.IGNORECASE)


def _suffix(day: int) -> str:
    return "th" if 10 <= day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _parses(text: str, format: str) -> bool:
    try:
        moment = datetime.strptime(text, format)
    except (ValueError, re.error):
        return False
    # strptime forgives missing zeros; a stated format does not
    return len(moment.strftime(format)) == len(text) or "%B" in format or "%I" in format


def _readable(format: str) -> bool:
    """Whether strptime takes it: not with a part twice, as an interval has."""
    try:
        datetime.strptime(datetime(2000, 1, 2).strftime(format), format)
    except (ValueError, re.error):
        return False
    return True


def _strftime(pattern: str) -> str:
    if "%" in pattern:
        return pattern
    half = re.search(r"( ?)(?:AM|PM|am|pm)$", pattern)
    if half:
        return f"{_strftime(pattern[: half.start()])}{half.group(1)}%p".replace("%H", "%I")
    text = pattern.replace("YYYY", "%Y").replace("DD", "%d")
    text = re.sub(r"(HH|hh)([:.]?)(mm|MM)", r"%H\2%M", text).replace("HH", "%H").replace("hh", "%H")
    text = text.replace("SS", "%S").replace("ss", "%S").replace("MM", "%m").replace("mm", "%m")
    return text.replace("%%", "%")
