"""Lines that a kill or a full disk leaves whole."""

from __future__ import annotations

import gzip
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy import jsonlines
from quickstudy.errors import QuickstudyError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=30)
@given(st.lists(JSON, min_size=1, max_size=4), st.integers(0, 40))
def test_what_is_cut_off_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, values: list[object], cut: int
) -> None:
    path = tmp_path_factory.mktemp("x") / "lines.jsonl"
    for value in values:
        jsonlines.append(path, value)
    assert jsonlines.complete(path) == values
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - cut)])
    whole = jsonlines.complete(path)
    assert whole == values[: len(whole)]
    assert len(whole) == content[: max(0, len(content) - cut)].count(b"\n")
    jsonlines.append(path, "next")  # on a line of its own
    assert jsonlines.complete(path) == [*whole, "next"]


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    jsonlines.append(path, "a\u2028b\x85c\rd")
    jsonlines.append(path, "half a pair: \ud800")
    assert jsonlines.complete(path) == ["a\u2028b\x85c\rd", "half a pair: ?"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert jsonlines.complete(tmp_path / "none.jsonl") == []
    with pytest.raises(QuickstudyError, match="cannot read"):
        jsonlines.read(tmp_path / "none.jsonl")


def test_a_packed_file_is_read_in_place_of_a_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n{"b"'))
    assert jsonlines.read(path) == [{"a": 1}]
    jsonlines.append(path, 2)
    assert jsonlines.read(path) == [2]


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("1\nnot\n")
    with pytest.raises(QuickstudyError, match="line 2 is no JSON"):
        jsonlines.complete(path)


def test_a_disk_that_fills_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    jsonlines.append(path, "first")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
        with pytest.raises(QuickstudyError, match=r"cannot write .*lines\.jsonl"):
            jsonlines.append(path, "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text() == '"first"\n'
