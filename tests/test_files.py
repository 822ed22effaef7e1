"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from quickstudy import files
from quickstudy.errors import QuickstudyError


def test_writes_the_text_and_the_folders_above(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text"
    files.write(path, "one\ntwo é")
    assert path.read_bytes() == "one\ntwo é".encode()
    assert [p.name for p in path.parent.iterdir()] == ["text"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_half_a_character_is_written_as_a_question_mark(tmp_path: Path) -> None:
    files.write(tmp_path / "text", "half \ud83d")
    assert (tmp_path / "text").read_text() == "half ?"


def test_a_fault_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    path.write_text("old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(QuickstudyError, match=r"cannot write .*text: No space left on device"):
        files.write(path, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("text", "old")]


def test_checking_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "text"
    files.check(path)
    assert not list(tmp_path.iterdir())
    path.write_text("old")
    files.check(path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("text", "old")]


@pytest.mark.parametrize("attempt", [files.check, lambda path: files.write(path, "new")])
def test_a_folder_is_no_file(tmp_path: Path, attempt: object) -> None:
    assert callable(attempt)
    with pytest.raises(QuickstudyError, match=r"cannot write .*: it is no ordinary file"):
        attempt(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(QuickstudyError, match=r"cannot write .*file/text: "):
        attempt(tmp_path / "file" / "text")
