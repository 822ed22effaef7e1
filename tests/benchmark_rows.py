"""Invented rows in the forms of the benchmarks, and folders that hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def tool(name: str, **parameters: Row) -> Row:
    return {"name": name, "description": f"{name}.", "parameters": parameters}


PLACE = {"type": "str", "description": "Where", "required": True}
DEPTH = {"type": "float", "description": "How deep, in metres"}
SEA = tool("getSeaTemperature", place=PLACE, depth=DEPTH)
TIDE = tool("getTide", place=PLACE)

SEALTOOL: list[Row] = [
    {
        "query": "How warm is the sea near Bergen, 2.5 metres down?",
        "tools": [{**SEA, "required": ["place"]}, TIDE],
        "answers": [
            {"tool": "getSeaTemperature", "parameters": {"place": "Bergen", "depth": "2.5"}}
        ],
    },
    {
        "query": "Which harbours are there?",
        "tools": [tool("listHarbours"), TIDE],
        "answers": [{"tool": "listHarbours", "parameters": {}}],
    },
]

KEY = {"type": "string", "description": "Your key", "required": True}
WIND = tool("wind_get", access_key=KEY, place={**PLACE, "type": "string"})
COMPONENTS = tool("components")


def wind(place: str, key: str = "3f2a") -> Row:
    return {"name": "wind_get", "arguments": {"access_key": key, "place": place}}


TOOLALPACA: list[Row] = [
    {
        "query": "Is it windy in Bergen, and in Oslo?",
        "tools": [WIND, COMPONENTS],
        "answers": [wind("Bergen"), wind("Oslo")],
    },
    {
        "query": "My key is 77x. Is it windy in Oslo?",
        "tools": [WIND, COMPONENTS],
        "answers": [wind("Oslo", "77x")],
    },
    {
        "query": "Is it foggy in Oslo?",
        "tools": [WIND, COMPONENTS],
        "answers": [{"name": "fog_get", "arguments": {"place": "Oslo"}}],
    },
]

BOOK = tool(
    "BookTable",
    guest_id={"type": "int", "description": "The guest"},
    dishes={"type": "list(str)", "description": "What to cook"},
)
APIBANK: list[Row] = [
    {
        "query": [
            {"role": "user", "content": "I am Ada. Book me a table, I want soup and fish."},
            {"role": "agent", "content": "I look you up."},
            {"role": "assistant", "content": '```[{"name": "FindGuest", "arguments": {}}]```'},
            {"role": "tool", "content": "{'guest_id': 7}"},
            {"role": "agent", "content": "I book it now.\nGenerate API Request:"},
        ],
        "tools": [BOOK],
        "answers": [
            {"name": "BookTable", "arguments": {"guest_id": "7", "dishes": "['soup', 'fish']"}}
        ],
    },
    {
        "query": [
            {"role": "user", "content": "Book a table for guest 8."},
            {"role": "agent", "content": "Generate API Request:"},
        ],
        "tools": [BOOK],
        "answers": [{"name": "BookTable", "arguments": {"guest_id": "8", "people": "2"}}],
    },
]

NEXUSRAVEN: list[Row] = [
    {
        "id": "virustotal-0",
        "source": "virustotal",
        "query": "What do you know of harbour.example?",
        "tools": [
            tool(
                "vt_get_domain",
                domain={"type": "string", "description": "", "required": True},
                limit={"type": "integer", "description": "", "required": False, "default": None},
            )
        ],
        "answers": [{"name": "vt_get_domain", "arguments": {"domain": "harbour.example"}}],
    },
    {
        "id": "toolalpaca-0",
        "source": "toolalpaca",
        "query": "Find films about boats.",
        "tools": [
            tool(
                "findFilms",
                topic={"type": "string", "description": "Required. string.", "required": True},
                year={"type": "integer", "description": "integer.", "required": True},
                language={"type": "string", "description": "string.", "required": True},
            )
        ],
        "answers": [
            {"name": "findFilms", "arguments": {"topic": "boats", "year": None, "language": None}}
        ],
    },
]


def train_row(number: int, calls: int = 1) -> Row:
    slip = {"type": "int", "description": "Which", "required": True}
    answers = [{"name": f"reserve{n}", "arguments": {"slip": number}} for n in range(calls)]
    tools = [tool(f"reserve{n}", slip=slip) for n in range(calls)]
    return {
        "id": f"dev-easy-{number}",
        "query": f"Reserve slip {number}.",
        "tools": [*tools, TIDE],
        "answers": answers,
    }


TRAIN = [train_row(number, 1 if number < 203 else 2) for number in range(206)]


def write(folder: Path) -> Path:
    """Writes all files of all benchmarks."""
    (folder / "train").mkdir()
    for name, rows in (
        ("sealtool.json", SEALTOOL),
        ("toolalpaca.json", TOOLALPACA),
        ("apibank_l1.json", APIBANK),
        ("apibank_l2.json", APIBANK),
        ("NexusRaven.json", NEXUSRAVEN),
        ("train/sealtool_train.json", TRAIN),
    ):
        (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    return folder
