"""Files of JSON lines that survive a kill: whole lines only, and what is told is on the disk."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

from quickstudy.errors import QuickstudyError


def append(path: Path, line: Any) -> None:
    """Adds a line, or nothing: a disk that fills leaves no half of it.

    Raises:
        QuickstudyError: if it cannot be written.
    """
    # half a surrogate pair, which a model can write, has no bytes in UTF-8
    text = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "replace")
    try:
        with path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                rest = memoryview(text)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:  # Ctrl-C too
                file.truncate(end)
                raise
    except OSError as error:
        raise QuickstudyError(f"cannot write {path}: {error.strerror}") from error


def complete(path: Path) -> list[Any]:
    """Every line. What a kill has left of a last line is cut off the file.

    Raises:
        QuickstudyError: names a line that is no JSON.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    return _parsed(path, whole)


def read(path: Path) -> list[Any]:
    """Every line of a file that is not to be changed; `x.jsonl.gz` is taken where `x.jsonl` is not.

    Raises:
        QuickstudyError: if there is no such file, or a line is no JSON.
    """
    packed = path.with_name(f"{path.name}.gz")
    try:
        if not path.exists() and packed.exists():
            return _parsed(packed, gzip.decompress(packed.read_bytes()))
        content = path.read_bytes()
    except (OSError, EOFError) as error:
        raise QuickstudyError(f"cannot read {path}: {error}") from error
    return _parsed(path, content[: content.rfind(b"\n") + 1])


def _parsed(path: Path, content: bytes) -> list[Any]:
    lines = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise QuickstudyError(f"{path}, line {number} is no JSON: {error}") from error
    return lines
