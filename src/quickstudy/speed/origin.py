"""Which quickstudy a run was made with: its version, and the commit where it runs from a tree."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]


def origin(package: Path = PACKAGE) -> dict[str, Any]:
    """`commit` and `dirty` are None where the package is no part of a git tree.

    An installed package may lie inside somebody else's tree, which does not track its files.
    `dirty`: the package's own files are not those of the commit.
    """
    told: dict[str, Any] = {"version": version("quickstudy"), "commit": None, "dirty": None}
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None:
        told["commit"] = (_git(package, "rev-parse", "HEAD") or "").strip() or None
        told["dirty"] = bool(_git(package, "status", "--porcelain", "--", "."))
    return told


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *command], capture_output=True, text=True)
    except OSError:  # there is no git
        return None
    return None if done.returncode else done.stdout
