"""What the site takes from the code, so that it cannot go stale.

A page says `<!-- from the code: NAME -->` and gets what the function NAME in `PARTS` returns.
mkdocs calls `on_page_markdown` for every page.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from quickstudy import catalog, reader
from quickstudy.cli import app
from quickstudy.config import PRESETS, Config, Stage
from quickstudy.config import settings as known_settings
from quickstudy.errors import QuickstudyError

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "src" / "quickstudy"
MARK = re.compile(r"<!-- from the code: ([\w-]+) -->")
READ_FIRST = ("improve", "types", "awareness", "augmentation", "learning")

BAD_REQUESTS = (
    "{",
    '{"prompt": "Hi"}',
    '{"messages": []}',
    '{"messages": [{"role": "robot", "content": "Hi"}]}',
    '{"messages": [{"role": "system", "content": "You help."}]}',
    '{"messages": "Hi", "tools": "f"}',
    '{"messages": "Hi", "tools": [{"description": "no name"}]}',
    '{"messages": "Hi", "tools": [{"name": "f"}, {"name": "f"}]}',
    '{"messages": "Hi", "tools": [{"name": "f", "parameters": {"type": "text"}}]}',
)
BAD_SETTINGS = ("learning.rnak=8", "learning.rank", "learning.rank=0", "method=guess")
BAD_MODELS = ("no-such-file.gguf", "no such model")


def on_page_markdown(markdown: str, **_: Any) -> str:
    return MARK.sub(lambda mark: PARTS[mark[1]](), markdown)


def settings() -> str:
    """A table a stage: name, type, default, meaning."""
    schema = Config.model_json_schema()
    meanings = {name: (default, meaning) for name, default, meaning in known_settings()}
    groups: dict[str, list[str]] = {}
    for name, (default, meaning) in meanings.items():
        stage, _, field = name.rpartition(".")
        properties = schema["$defs"][_model(stage).__name__] if stage else schema
        kind = _type(properties["properties"][field])
        row = f"| `{name}` | {kind} | `{_plain(default)}` | {_cell(meaning)} |"
        groups.setdefault(stage, []).append(row)
    return "\n\n".join(
        f"## {stage or 'All stages'}\n\n{_model(stage).__doc__ if stage else ''}\n\n"
        "| setting | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)
        for stage, rows in groups.items()
    )


def presets() -> str:
    """What each preset sets, beside the plain default."""
    plain = {name: default for name, default, _ in known_settings()}
    changed = [preset for preset, stages in PRESETS.items() if stages]
    rows = [
        f"| `{preset}` | `{name}` | `{_plain(value)}` | `{_plain(plain[name])}` |"
        for preset in changed
        for stage, fields in PRESETS[preset].items()
        for name, value in ((f"{stage}.{field}", value) for field, value in fields.items())
    ]
    return "\n".join(["| preset | setting | value | default |", "|---|---|---|---|", *rows])


def commands() -> str:
    """Every command with its help and options, as `--help` tells them."""
    group = typer.main.get_command(app)
    sections = [str(group.help)]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        context = typer.Context(command, info_name=name)
        records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
        rows = [f"| `{record[0]}` | {_cell(record[1])} |" for record in records if record]
        table = "\n".join(["| option | meaning |", "|---|---|", *rows])
        sections.append(f"## quickstudy {name}\n\n{command.help}\n\n{table}")
    return "\n\n".join(sections)


def episode(number: int) -> str:
    answers = json.loads((DOCS / "episodes.json").read_text(encoding="utf-8"))
    return f"```json\n{json.dumps(answers[number], indent=2, ensure_ascii=False)}\n```"


def bad_input() -> str:
    """What each bad input is told, said by the code itself."""
    nowhere = DOCS / "no-such-folder"
    kinds: dict[str, dict[str, str]] = {
        "A request": {text: _told(_read, text) for text in BAD_REQUESTS},
        "A setting": {f"--set {text}": _told(Config.load, None, [text]) for text in BAD_SETTINGS},
        "A model": {f"--model '{m}'": _told(catalog.resolve, m, nowhere) for m in BAD_MODELS},
    }
    return "\n\n".join(
        "\n\n".join(
            [f"### {kind}", *(f"`{given}`\n:   {_cell(told)}" for given, told in rows.items())]
        )
        for kind, rows in kinds.items()
    )


def modules() -> str:
    """The docstring of every module, the cycle first."""
    return "\n\n".join(
        f"::: {name}\n    options:\n      members: false\n      heading_level: 2"
        for name in module_names()
    )


def module_names() -> list[str]:
    """Modules and packages that say something, in the order to read them."""

    def rank(parts: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
        return READ_FIRST.index(parts[0]) if parts[0] in READ_FIRST else len(READ_FIRST), parts

    files = [path for path in PACKAGE.rglob("*.py") if path.read_text(encoding="utf-8").strip()]
    found = {path.relative_to(PACKAGE).with_suffix("").parts for path in files}
    names = [parts[:-1] if parts[-1] == "__init__" else parts for parts in found]
    return [".".join(("quickstudy", *parts)) for parts in sorted(filter(None, names), key=rank)]


def _model(stage: str) -> type[Stage]:
    return type(Config.model_fields[stage].default)


def _type(field: Mapping[str, Any]) -> str:
    """A setting's type in words, from its JSON Schema."""
    if "anyOf" in field:
        return ", or ".join(_type(option) for option in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    words = {"null": "none", "boolean": "true or false", "string": "text", "array": "list"}
    kind = "path" if field.get("format") == "path" else str(field["type"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[key]}" for key, sign in signs.items() if key in field]
    return " ".join([words.get(kind, kind), " and ".join(bounds)]).strip()


def _plain(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _cell(text: str) -> str:
    """Text for a table cell: what is not code must not be read as HTML or as a cell's end."""
    parts = text.replace("\n", " ").split("`")
    parts[::2] = [html.escape(part, quote=False).replace("|", "\\|") for part in parts[::2]]
    return "`".join(parts)


def _read(text: str) -> None:
    for request in reader.read_requests(text):
        if isinstance(request, reader.BadRequest):
            raise QuickstudyError(request.error)


def _told(call: Callable[..., object], *arguments: object) -> str:
    try:
        call(*arguments)
    except QuickstudyError as error:
        return str(error)
    raise AssertionError(f"no error from {arguments}: it is no bad input any more")


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "presets": presets,
    "commands": commands,
    "episode-practised": lambda: episode(0),
    "episode-fallback": lambda: episode(1),
    "bad-input": bad_input,
    "modules": modules,
}
