"""The practice memory gives back what it was given, and nothing else can go wrong with it."""

from __future__ import annotations

import json
import logging
import os
import pickle
import resource
import sqlite3
import threading
import time
import warnings
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.augmentation import memory
from quickstudy.augmentation.memory import Memory
from quickstudy.errors import ConfigError, QuickstudyError
from quickstudy.types import Example, Message, Reply, Request, Tool, ToolCall

EXAMPLES = [
    Example(
        (Message("system", "Be brief."), Message("user", "Dim the attic")),
        (ToolCall("dim", {"room": "attic", "level": 2, "rate": 2.5, "off": False, "by": None}),),
        "substitution",
    ),
    Example((Message("user", "Größe „5“ \n\t"),), (), "question-answer", "fünf"),
    Example(
        (
            Message("user", "Dim it", ()),
            Message("assistant", "", (ToolCall("dim", {"rooms": ["a", {"b": [1]}]}),)),
            Message("tool", "done"),
            Message("user", "And the hall"),
        ),
        (ToolCall("dim", {"rooms": ["hall"]}), ToolCall("stop", {})),
        "call-first",
        "both then",
    ),
]


def entries(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "cache.db")


@pytest.fixture
def kept(tmp_path: Path) -> Memory:
    made = Memory(tmp_path / "kept", 1)
    made.keep("k", EXAMPLES)
    return made


class TestKeeping:
    def test_what_is_kept_is_recalled_the_same(self, kept: Memory, tmp_path: Path) -> None:
        assert kept.recall("k") == EXAMPLES
        kinds = [type(v) for v in kept.recall("k")[0].tool_calls[0].arguments.values()]
        assert kinds == [str, int, float, bool, type(None)]
        assert list(kept.recall("k")[0].tool_calls[0].arguments) == [
            *("room", "level", "rate", "off", "by")
        ]
        assert Memory(tmp_path / "kept", 1).recall("k") == EXAMPLES, "in another process as well"

    def test_what_is_not_there_is_nothing(self, kept: Memory) -> None:
        assert kept.recall("other") == []

    def test_the_newest_stays(self, kept: Memory) -> None:
        kept.keep("k", EXAMPLES[:1])
        assert kept.recall("k") == EXAMPLES[:1]

    def test_the_least_recently_used_go_first(self, tmp_path: Path) -> None:
        made = Memory(tmp_path, 1)
        long = [replace(EXAMPLES[1], content="x" * 40_000)]
        for number in range(32):
            made.keep(f"k{number}", long)
            assert made.recall("k0") == long, "it was used all the time"
        assert made.recall("k31") == long
        assert made.recall("k1") == []
        size = sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
        assert size < 2_000_000

    def test_no_connection_is_left_open(self, kept: Memory) -> None:
        threads = [threading.Thread(target=lambda: kept.recall("k")) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept.recall("k")
        kept.keep("k", EXAMPLES)
        open_files = [os.readlink(f"/proc/self/fd/{fd}") for fd in list_fds()]
        assert not [name for name in open_files if "cache.db" in name]

    def test_threads_may_share_one(self, kept: Memory) -> None:
        found: list[Any] = []

        def work(number: int) -> None:
            kept.keep(f"t{number}", EXAMPLES[:1])
            found.append(kept.recall(f"t{number}"))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [EXAMPLES[:1]] * 6

    def test_is_opened_once_a_process(self, tmp_path: Path) -> None:
        assert memory.opened(tmp_path, 1) is memory.opened(tmp_path, 1)
        assert memory.opened(tmp_path, 1) is not memory.opened(tmp_path / "other", 1)


def list_fds() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            os.readlink(f"/proc/self/fd/{fd}")
            found.append(fd)
    return found


CORRUPT: list[Any] = [
    "",
    "{",
    "null",
    "5",
    '"text"',
    "{}",
    "[null]",
    "[[]]",
    '["x"]',
    "[" * 100_000,
    json.dumps([{"messages": [], "answer": {"role": "assistant", "content": "x"}, "source": ""}]),
    json.dumps([{"messages": [{"role": "user", "content": "x"}], "source": ""}]),
    json.dumps(
        [
            {
                "messages": [{"role": "user", "content": "x"}],
                "answer": {"role": "assistant"},
                "source": "",
            }
        ]
    ),
    json.dumps(
        [
            {
                "messages": [{"role": "nobody"}],
                "answer": {"role": "assistant", "content": "x"},
                "source": "",
            }
        ]
    ),
    json.dumps([{"messages": 5, "answer": 5, "source": 5}]),
    b"bytes",
    5,
    None,
]


class TestCorrupted:
    @pytest.mark.parametrize("value", CORRUPT, ids=lambda v: repr(v)[:30])
    def test_an_entry_that_is_none_is_a_miss(self, kept: Memory, value: Any) -> None:
        kept._cache.set("k", value)
        kept._cache.close()
        assert kept.recall("k") == []
        kept.keep("k", EXAMPLES)
        assert kept.recall("k") == EXAMPLES

    @settings(deadline=None, max_examples=50)
    @given(st.data())
    def test_an_entry_damaged_anywhere_is_read_or_missed(self, data: st.DataObject) -> None:
        """What is read is a list of whole examples, never half of one."""
        text = json.dumps([memory.dump(example) for example in EXAMPLES])
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 30))
        damaged = text[:at] + data.draw(st.text('{}[]",:0n ', max_size=3)) + text[at + cut :]
        with suppress(QuickstudyError, ValueError, LookupError, TypeError, RecursionError):
            for example in (memory.parse(raw) for raw in json.loads(damaged)):
                assert example.messages
                assert example.content or example.tool_calls
                example.to_json()

    def test_a_pickle_is_never_opened(self, kept: Memory, tmp_path: Path) -> None:
        """It could run any code."""
        harm = tmp_path / "harm"

        class Harm:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(harm),)

        for value in (pickle.dumps(Harm()), None):
            with closing(entries(tmp_path / "kept")) as database:
                (tmp_path / "kept" / "x.val").write_bytes(pickle.dumps(Harm()))
                database.execute(
                    "UPDATE Cache SET mode = 4, value = ?, filename = 'x.val'", (value,)
                )
                database.commit()
            assert kept.recall("k") == []
            assert not harm.exists()


class TestFolder:
    """A bad folder is told when it is opened; one that fails later costs a warning."""

    def test_is_made_with_its_parents(self, tmp_path: Path) -> None:
        Memory(tmp_path / "a" / "b", 1).keep("k", EXAMPLES)
        assert Memory(tmp_path / "a" / "b", 1).recall("k") == EXAMPLES

    def test_of_the_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        Memory(Path("~/kept"), 1)
        assert (tmp_path / "kept" / "cache.db").is_file()

    def test_that_cannot_be_used_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "cache.db").write_bytes(b"no database at all" * 100)
        (tmp_path / "odd" / "cache.db").mkdir(parents=True)
        nobody = Path("~nobody-of-this-name/x")
        for folder in (
            *(tmp_path / "file", tmp_path / "file" / "x", tmp_path / "broken", tmp_path / "odd"),
            *(Path("/proc/none"), nobody),
        ):
            with pytest.raises(ConfigError) as caught:
                Memory(folder, 1)
            assert str(folder) in str(caught.value)
            assert "augmentation.memory" in str(caught.value)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
    def test_that_is_read_only(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(ConfigError):
            Memory(tmp_path / "x", 1)
        tmp_path.chmod(0o700)

    def test_that_somebody_holds_is_not_waited_for_long(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory, "_PATIENCE", 0.1)
        kept = Memory(tmp_path / "kept", 1)
        kept.keep("k", EXAMPLES)
        with closing(entries(tmp_path / "kept")) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            start = time.monotonic()
            with pytest.raises(ConfigError, match="locked"):
                Memory(tmp_path / "kept", 1)
            assert kept.recall("k") == []
            kept.keep("k", EXAMPLES[:1])
            assert time.monotonic() - start < 5
        assert kept.recall("k") == EXAMPLES

    def test_that_becomes_full(
        self, kept: Memory, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            for size in (10, 50_000):  # inside the database; as a file of its own
                kept.keep("n", [replace(EXAMPLES[1], content="x" * size)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caplog.text.count("cannot be written") == 2
        assert kept.recall("n") == []
        assert kept.recall("k") == EXAMPLES

    def test_that_is_taken_away_is_made_anew(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = tmp_path / "kept"
        first = memory.opened(folder, 1)
        first.keep("k", EXAMPLES)
        folder.rename(tmp_path / "away")
        caplog.set_level(logging.WARNING)
        assert first.recall("k") == []
        first.keep("k", EXAMPLES)
        assert "cannot be read" in caplog.text
        assert "cannot be written" in caplog.text
        again = memory.opened(folder, 1)
        assert again.recall("k") == []
        again.keep("k", EXAMPLES)
        assert again.recall("k") == EXAMPLES

    def test_that_breaks_later_is_a_miss(self, kept: Memory, tmp_path: Path) -> None:
        for file in (tmp_path / "kept").glob("cache.db*"):
            file.write_bytes(b"no database at all" * 100)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kept.recall("k") == []
            kept.keep("k", EXAMPLES)


TOOL = Tool(
    "dim",
    "Darker",
    {"type": "object", "properties": {"room": {"type": "string"}, "level": {"type": "integer"}}},
)
REQUEST = Request((Message("user", "Dim the attic"),), (TOOL,), "id1")
DRAFT = Reply("", (ToolCall("dim", {"room": "attic", "level": 1}),))
SETTINGS = {"augmentation": {"examples": 2}, "seed": 0}


def reordered(tool: Tool) -> Tool:
    properties = dict(reversed(tool.properties.items()))
    return replace(tool, parameters={**tool.parameters, "properties": properties})


class TestKey:
    def test_one_request_one_key(self) -> None:
        again = Request.parse(
            [message.to_openai() for message in REQUEST.messages], [TOOL.to_openai()], "another id"
        )
        one = memory.key("m", REQUEST, DRAFT, "json", SETTINGS)
        assert one == memory.key("m", again, DRAFT, "json", dict(SETTINGS))

    def test_all_that_decides_is_in_it(self) -> None:
        said = Message("user", "Dim the attic")
        requests = [
            REQUEST,
            replace(REQUEST, messages=(Message("user", "Dim the attic "),)),
            replace(REQUEST, messages=(Message("system", ""), said)),
            replace(REQUEST, messages=(said, Message("assistant", "ok"), said)),
            replace(REQUEST, messages=(said, Message("assistant", "", DRAFT.tool_calls), said)),
            replace(REQUEST, tools=()),
            replace(REQUEST, tools=(TOOL, replace(TOOL, name="lit"))),
            replace(REQUEST, tools=(replace(TOOL, name="lit"), TOOL)),
            replace(REQUEST, tools=(replace(TOOL, description="darker"),)),
            replace(REQUEST, tools=(reordered(TOOL),)),
            replace(
                REQUEST, tools=(replace(TOOL, parameters={**TOOL.parameters, "required": []}),)
            ),
        ]
        keys = [memory.key("m", request, DRAFT, "json", SETTINGS) for request in requests]
        drafts = [
            Reply("", ()),
            Reply("ok", DRAFT.tool_calls),
            Reply("", DRAFT.tool_calls * 2),
            Reply("", (ToolCall("dim", {"room": "attic", "level": "1"}),)),
            Reply("", (ToolCall("dim", {"room": "attic", "level": True}),)),
            Reply("", (ToolCall("dim", {"level": 1, "room": "attic"}),)),
        ]
        keys += [memory.key("m", REQUEST, draft, "json", SETTINGS) for draft in drafts]
        keys += [
            memory.key("m2", REQUEST, DRAFT, "json", SETTINGS),
            memory.key("m", REQUEST, DRAFT, "tagged", SETTINGS),
            memory.key("m", REQUEST, DRAFT, None, SETTINGS),
            memory.key("m", REQUEST, DRAFT, "json", {**SETTINGS, "seed": 1}),
            memory.key("m", REQUEST, DRAFT, "json", {**SETTINGS, "augmentation": {"examples": 3}}),
        ]
        assert len(set(keys)) == len(keys)
        assert all(len(key) == 64 for key in keys)

    def test_half_a_surrogate_pair_is_a_letter_like_any(self) -> None:
        keys = {
            memory.key("m", replace(REQUEST, messages=(Message("user", text),)), DRAFT, None, {})
            for text in ("\ud800", "\udc00", "?", "\\ud800")
        }
        assert len(keys) == 4
