"""The README is executed: its options exist, its request is read, its Python names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

import quickstudy
from quickstudy.cli import app
from quickstudy.reader import read_requests
from quickstudy.types import Request

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_commands_and_their_options_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    lines = re.findall(r"^quickstudy (\w+)(.*)$", "\n".join(blocks("sh")), re.MULTILINE)
    assert {name for name, _ in lines} == set(commands)
    for name, rest in lines:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--\w+", rest.split("#")[0])) <= known


def test_make_targets_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)) <= set(targets)


def test_the_request_is_read() -> None:
    (text,) = blocks("json")
    (request,) = read_requests(text)
    assert isinstance(request, Request)
    assert request.tools[0].required == {"title", "day"}


def test_python_names_exist() -> None:
    for block in blocks("python"):
        for name in re.findall(r"from quickstudy import (\w+)", block):
            assert hasattr(quickstudy, name)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_are_short_and_compile(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) < 40
    compile(source, str(path), "exec")


def test_every_local_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
