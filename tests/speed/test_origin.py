"""A commit is told of the package's own tree only, and changes to it are seen."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from quickstudy.speed.origin import origin


def git(folder: Path, *command: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@x")
    done = subprocess.run(
        ["git", "-C", folder, *who, *command], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_commit_and_changes(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    untracked = {"version": version("quickstudy"), "commit": None, "dirty": None}
    assert origin(package) == untracked
    git(tmp_path, "init", "-q")
    assert origin(package) == untracked  # it lies in somebody's tree
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert origin(package) == {**untracked, "commit": commit, "dirty": False}
    (tmp_path / "results.json").write_text("{}")  # outside the package
    assert origin(package)["dirty"] is False
    (package / "__init__.py").write_text("x = 1")
    assert origin(package) == {**untracked, "commit": commit, "dirty": True}
