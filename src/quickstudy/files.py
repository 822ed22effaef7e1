"""Files that are written whole or not at all: a reader never meets half of one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quickstudy.errors import QuickstudyError


def write(path: Path, content: str | bytes) -> None:
    """Writes `content`, or leaves the file as it was; folders that are missing are made.

    Raises:
        QuickstudyError: if it cannot be written.
    """
    with _beside(path) as (half, target):
        if isinstance(content, str):
            # a model can write half a surrogate pair, which UTF-8 has no bytes for
            content = content.encode("utf-8", "replace")
        half.write_bytes(content)
        half.replace(target)


def check(path: Path) -> None:
    """Tries whether `write` could, and changes nothing: before minutes of work, not after.

    Raises:
        QuickstudyError: if it could not.
    """
    with _beside(path) as (half, _):
        half.touch()


@contextmanager
def _beside(path: Path) -> Iterator[tuple[Path, Path]]:
    """A file next to the one meant, on the same disk, and the one meant."""
    target = path.resolve()  # a link stays a link
    half = target.with_name(f".{target.name}.part")
    try:
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, "it is no ordinary file")
        half.parent.mkdir(parents=True, exist_ok=True)
        yield half, target
    except OSError as error:
        raise QuickstudyError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            half.unlink(missing_ok=True)
