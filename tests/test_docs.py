"""The documentation is executed: its commands, settings, names and links exist, its example is
an episode of today, and what it takes from the code is all there. mkdocs itself is not run.
"""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

import quickstudy
from quickstudy.cli import app
from quickstudy.config import Config, settings
from quickstudy.reader import read_requests
from quickstudy.types import (
    STAGES,
    Answer,
    Candidate,
    Episode,
    Example,
    Message,
    Rejected,
    Reply,
    Request,
    ToolCall,
)

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
every_page = pytest.mark.parametrize("page", PAGES)


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(language: str) -> list[str]:
    found = [re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for text in PAGES.values()]
    return [block for page in found for block in page]


def command_lines() -> list[str]:
    shown = "\n".join(blocks("sh"))
    return [re.split(r"\s#", line)[0].strip() for line in shown.splitlines()]


class TestWhatIsTyped:
    def test_commands_and_their_options_exist(self) -> None:
        commands = get_command(app).commands  # type: ignore[attr-defined]
        lines = [line.split() for line in command_lines() if line.startswith("quickstudy ")]
        assert lines
        for _, name, *rest in lines:
            known = {option for parameter in commands[name].params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= known

    def test_settings_that_are_set_exist(self) -> None:
        given = re.findall(r"--set (\S+=\S+)", "\n".join(command_lines()))
        given += re.findall(r"overrides=\[(.*?)\]", "\n".join(blocks("python")))
        assert given
        for text in given:
            Config.load(overrides=re.findall(r"[\w.]+=[\w.]+", text))

    @pytest.mark.parametrize("text", blocks("toml"))
    def test_a_settings_file_is_read(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "settings.toml").write_text(text)
        loaded = Config.load(tmp_path / "settings.toml")
        given, wanted = loaded.model_dump(mode="json"), tomllib.loads(text)
        wanted.get("serve", {}).pop("keys", None)  # settings fill in what they do not say
        for name, value in wanted.items():
            told = given[name]
            if isinstance(value, dict):
                told = {key: told[key] for key in value}
            assert told == value

    def test_make_targets_exist(self) -> None:
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", "\n".join(PAGES.values()), re.MULTILINE)
        assert "wheel-test" in named
        assert set(named) <= set(targets)

    def test_pip_extras_exist(self) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        told = re.search(r"The extra `serve`.*?reserved", PAGES["index.md"], re.DOTALL)
        assert told is not None
        named = set(re.findall(r"`([\w-]+)`", told[0]))
        assert named == {"serve", "bench", "mlflow", "lm-eval", "ray"}
        assert named < set(extras["optional-dependencies"])

    def test_requests_are_read(self) -> None:
        for text in blocks("json"):
            (request,) = read_requests(text)
            assert isinstance(request, Request)

    def test_python_names_exist(self) -> None:
        shown = "\n".join(blocks("python"))
        names = re.findall(r"from quickstudy import (.*)", shown)
        assert names
        for name in ", ".join(names).split(", "):
            assert hasattr(quickstudy, name)
        for block in blocks("python"):
            compile(block, "docs", "exec")


class TestPages:
    @every_page
    def test_settings_that_are_named_exist(self, page: str) -> None:
        known = {name for name, _, _ in settings()}
        stages = {name.split(".")[0] for name in known if "." in name}
        for stage, rest in re.findall(r"`(\w+)\.(\w+)", PAGES[page]):
            assert stage not in stages or f"{stage}.{rest}" in known

    @every_page
    def test_links_lead_to_a_page_and_its_heading(self, page: str, hooks: ModuleType) -> None:
        for target in re.findall(r"\]\((?!http)([^)]+)\)", PAGES[page]):
            name, _, heading = target.partition("#")
            name = name or page
            text = hooks.on_page_markdown(PAGES[name])
            titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
            assert not heading or heading in {title.lower().replace(" ", "-") for title in titles}

    def test_the_menu_has_every_page(self) -> None:
        menu = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
        assert sorted(menu) == sorted(PAGES)

    def test_nothing_is_fetched_from_elsewhere(self) -> None:
        assert "font: false" in (ROOT / "mkdocs.yml").read_text()
        sources = [*PAGES.values(), (DOCS / "extra.css").read_text()]
        assert not re.search(r"""(?:src=|url\(|@import)\s*["']?https?:""", "\n".join(sources))

    def test_the_reference_has_every_public_name(self) -> None:
        named = re.findall(r"^::: quickstudy\.(\w+)$", PAGES["reference.md"], re.MULTILINE)
        assert sorted(named) == sorted(quickstudy.__all__)

    def test_every_method_is_told(self) -> None:
        told = re.findall(r"^\| `([\w-]+)` \|", PAGES["cycle.md"], re.MULTILINE)
        schema = Config.model_json_schema()["properties"]["method"]
        assert sorted(told) == sorted(schema["enum"])


class TestEpisode:
    def test_every_field_is_explained(self) -> None:
        explained = set(re.findall(r"^\| `([\w.]+)` \|", PAGES["episode.md"], re.MULTILINE))
        # the table says of rejected examples: the same fields
        explained |= {name.replace("examples.", "rejected.") for name in explained}
        assert keys(whole_answer()) <= explained

    def test_every_stage_is_explained(self) -> None:
        stages = PAGES["episode.md"].partition("The stages of `seconds`")[2]
        assert all(f"`{stage}`" in stages for stage in STAGES)

    def test_the_example_has_todays_fields(self, hooks: ModuleType) -> None:
        """If not: `python docs/example.py`."""
        blocks = [hooks.episode(number) for number in (0, 1)]
        practised, fallback = (
            json.loads(block.strip("`").removeprefix("json")) for block in blocks
        )
        assert keys(practised) | keys(fallback) == keys(whole_answer())
        assert practised["episode"]["practised"]
        assert fallback["episode"]["fallback"]


class TestFromTheCode:
    @every_page
    def test_every_mark_is_filled(self, page: str, hooks: ModuleType) -> None:
        assert "<!-- from the code" not in hooks.on_page_markdown(PAGES[page], page=None)

    def test_every_part_is_used(self, hooks: ModuleType) -> None:
        used = hooks.MARK.findall("\n".join(PAGES.values()))
        assert sorted(used) == sorted(hooks.PARTS)

    def test_settings(self, hooks: ModuleType) -> None:
        rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| `(.+?)` \| (.+) \|$", hooks.settings(), re.M)
        assert [name for name, *_ in rows] == [name for name, _, _ in settings()]
        told = {name: rest for name, *rest in rows}
        assert told["learning.rank"][:2] == ["integer ≥ 1", "16"]
        assert told["learning.mode"][0] == "`activated`, `full`"
        assert told["model.threads"][:2] == ["integer ≥ 1, or none", "none"]
        assert told["decoding.constrained"][:2] == ["true or false", "true"]
        assert "certainty &lt; threshold" in told["awareness.threshold"][2]

    def test_commands(self, hooks: ModuleType) -> None:
        told = hooks.commands()
        for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
            section = told.partition(f"## quickstudy {name}\n")[2].partition("\n## ")[0]
            for parameter in command.params:
                option = parameter.param_type_name == "option"
                assert f"| `{parameter.opts[0] if option else parameter.metavar}" in section

    def test_bad_input_is_told_what_the_library_says(self, hooks: ModuleType) -> None:
        told = hooks.bad_input()
        assert "did you mean learning.rank?" in told
        assert told.count("\n:   ") == sum(
            map(len, (hooks.BAD_REQUESTS, hooks.BAD_SETTINGS, hooks.BAD_MODELS))
        )

    def test_good_input_is_no_example_of_bad_input(self, hooks: ModuleType) -> None:
        with pytest.raises(AssertionError, match="no bad input"):
            hooks._told(Config.load, None, ["learning.rank=8"])

    def test_modules_are_all_there_and_the_cycle_first(self, hooks: ModuleType) -> None:
        names = hooks.module_names()
        assert names[0] == "quickstudy.improve"
        package = ROOT / "src" / "quickstudy"
        files = [path for path in package.rglob("*.py") if path.name != "__init__.py"]
        assert {path.stem for path in files} <= {name.split(".")[-1] for name in names}
        assert all(f"::: {name}\n" in hooks.modules() for name in names)

    def test_a_cell_keeps_to_itself(self, hooks: ModuleType) -> None:
        assert hooks._cell("a | <b>\n`<c>`") == "a \\| &lt;b&gt; `<c>`"


def whole_answer() -> dict[str, Any]:
    """An answer's JSON with something in every field."""
    call = ToolCall("f", {})
    example = Example((Message("user", "Hi"),), (call,), "substitution")
    episode = Episode(
        method="tt-si",
        certainty=0.5,
        threshold=0.8,
        practised=True,
        fallback=None,
        draft=Reply("", (call,)),
        candidates=(Candidate("", -1.0),),
        examples=(example,),
        rejected=(Rejected(example, "why"),),
        losses=(1.0,),
    )
    return Answer("", (call,), episode, "id").to_json()


def keys(answer: Mapping[str, Any]) -> set[str]:
    """The names of all fields: the answer's own, the episode's, and those of its lists."""
    return {name.removeprefix("episode.") for name in _walk(answer, "")}


def _walk(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, path)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield f"{path}{name}"
            if name not in ("tool_calls", "draft", "seconds"):  # explained where they stand
                yield from _walk(inner, f"{path}{name}.")
