"""The report of runs: what it says, and that nothing that was recorded can break or act in it."""

from __future__ import annotations

import dataclasses
import gzip
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import recorded
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quickstudy.errors import QuickstudyError
from quickstudy.evals import markdown, results
from quickstudy.evals.report import panels, write_report
from quickstudy.types import Reply, ToolCall

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}</style>"
VOID = {"meta"}


class Page(HTMLParser):
    """What a browser would see: elements, attributes and words; tags must close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def render(tmp_path: Path, *folders: Path) -> str:
    write_report(results.read(folders), tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def one_item(folder: Path, *pairs: tuple[str, Reply], **changes: Any) -> Path:
    """A run of one item: methods and what they answered."""
    rows = {"sealtool": recorded.tasks(1)}
    made = [
        recorded.record("sealtool", rows["sealtool"][0], 0, method, reply, **changes)
        for method, reply in pairs
    ]
    return recorded.write_run(folder, made, recorded.summary(made, rows))


def right() -> Reply:
    return Reply("", recorded.tasks(1)[0].gold)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded.whole_run(tmp_path_factory.mktemp("whole"), count=12)


@pytest.fixture(scope="module")
def html(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(tmp_path_factory.mktemp("page"), whole)


class TestWhatItSays:
    def test_the_summary_s_own_numbers(self, whole: Path, html: str) -> None:
        (run,) = results.read([whole])
        text = Page(html).text
        for methods in run.summary.benchmarks.values():
            for told in methods.values():
                assert told.accuracy is not None
                assert told.ci95 is not None
                low, high = told.ci95
                assert f"{100 * told.accuracy:.1f}" in text
                assert f"[{100 * low:.1f}, {100 * high:.1f}]" in text
                assert told.delta_vs_base is not None
                fixed, broken = told.delta_vs_base.fixed, told.delta_vs_base.broken
                assert f"{fixed} fixed, {broken} broken" in text

    def test_fixed_and_broken_items_with_their_practice(self, tmp_path: Path) -> None:
        task = recorded.tasks(1)[0]
        wrong = Reply("", (ToolCall("stop_heat", {"room": "attic"}),))
        example = {"request": "Warm the hall.", "source": "substitution", "content": "Done."}
        practice = {
            "certainty": 0.25,
            "examples": [example],
            "losses": [0.5, None, 0.01],
            "notes": ["the teacher left"],
        }
        folder = one_item(tmp_path / "a", ("base", wrong), ("tt-si", right()), **practice)
        text = Page(render(tmp_path, folder)).text
        assert "tt-si: 1 fixed , 0 broken" in text
        said = text.partition("Fixed and broken items Against")[2]
        for part in (
            task.request.messages[-1].content,
            "Gold set_heat",
            "Base ✗ wrong − stop_heat",
            "Answer ✓ right + set_heat",
            "Base: wrong name: stop_heat was called instead of set_heat",
            "Practised on 1 example Warm the hall. Done.",
            "made by substitution",
            "Note: the teacher left",
            "certainty 0.25 · loss 0.5 → not finite → 0.01",
        ):
            assert part in said
        folder = one_item(tmp_path / "b", ("base", right()), ("tt-si", wrong))
        assert "tt-si: 0 fixed , 1 broken" in Page(render(tmp_path, folder)).text

    def test_many_changes_are_cut_and_it_says_so(self, tmp_path: Path) -> None:
        rows = {"sealtool": recorded.tasks(23)}
        made = [
            recorded.record("sealtool", task, place, method, reply)
            for place, task in enumerate(rows["sealtool"])
            for method, reply in (("base", Reply("?")), ("tt-si", Reply("", task.gold)))
        ]
        folder = recorded.write_run(tmp_path / "run", made, recorded.summary(made, rows))
        text = Page(render(tmp_path, folder)).text
        assert "tt-si: 23 fixed" in text
        assert "and 3 more, in records.jsonl" in text

    def test_no_call_as_gold_and_as_answer(self, tmp_path: Path) -> None:
        rows = {"abstain": recorded.tasks(1, abstain=True)}
        called = Reply("", (ToolCall("stop_heat", {}),))
        made = [
            recorded.record("abstain", rows["abstain"][0], 0, method, reply)
            for method, reply in (("base", called), ("tt-si", Reply("")))
        ]
        folder = recorded.write_run(tmp_path / "run", made, recorded.summary(made, rows))
        text = Page(render(tmp_path, folder)).text
        assert "Gold no call: no tool fits" in text
        assert "nothing: no words, no calls" in text
        assert "Calls where no tool fits 0.0% base: 100.0%" in text

    def test_unscored_is_not_wrong(self, tmp_path: Path) -> None:
        unscored = {"verdict": {"correct": None, "unscored": "the gold tool is not listed"}}
        folder = one_item(tmp_path / "run", ("base", right()), ("tt-si", right()), **unscored)
        page = Page(render(tmp_path, folder))
        assert "Fixed and broken items" not in page.text
        assert "0.0 [" not in page.text

    def test_certainty_is_told_once_for_methods_that_share_it(self, html: str) -> None:
        text = Page(html).text
        shared = "majority, tt-icl, tt-si, tt-si+repair, tt-si-paper, other-request"
        assert (
            len(re.findall(rf"AUROC [^·]*· \d+ right, \d+ wrong · {re.escape(shared)}", text)) == 5
        )

    def test_settings_that_differ_are_told_by_method(self, html: str) -> None:
        text = Page(html).text
        assert "Settings of all methods learning.rank 16" in text
        assert "Settings of tt-si-paper method tt-si-paper" in text


class TestSeveralRuns:
    def test_stand_side_by_side_and_are_told_apart(self, whole: Path, tmp_path: Path) -> None:
        other = recorded.whole_run(
            tmp_path / "b", ["sealtool"], ["base", "tt-si"], 8, seed=3, model="Tiny-1.5B"
        )
        runs = results.read([whole, other])
        text = Page(render(tmp_path, whole, other)).text
        assert "A · Model Tiny-0.5B" in text
        assert "B · Model Tiny-1.5B" in text
        (panel,) = [panel for panel in panels(runs) if panel.name == "sealtool"]
        labels = [row.label for row in panel.rows]
        assert labels[:2] == ["base (A)", "base (B)"]
        assert labels.index("tt-si (B)") == labels.index("tt-si (A)") + 1

    def test_runs_of_one_model_are_told_apart_by_folder(self, whole: Path, tmp_path: Path) -> None:
        other = recorded.whole_run(tmp_path / "seed1", ["sealtool"], ["base"], 3)
        assert [run.label for run in results.read([whole, other, whole])] == [
            f"Tiny-0.5B, {whole}",
            f"Tiny-0.5B, {other}",
        ]

    def test_thirty_runs_have_thirty_badges(self, tmp_path: Path) -> None:
        folders = [one_item(tmp_path / str(i), ("base", right())) for i in range(30)]
        badges = [run.badge for run in results.read(folders)]
        assert (badges[0], badges[25:28], len(set(badges))) == ("A", ["Z", "AA", "AB"], 30)


class TestOddRuns:
    def test_no_items(self, tmp_path: Path) -> None:
        folder = recorded.write_run(tmp_path / "run", [], recorded.summary([], {}))
        assert "This run holds no results yet." in Page(render(tmp_path, folder)).text
        assert markdown.tables(results.read([folder])) == "No results yet.\n"

    def test_a_benchmark_without_items(self, tmp_path: Path) -> None:
        rows = {"sealtool": recorded.tasks(3), "apibank": recorded.tasks(3)}
        made = recorded.records("sealtool", rows["sealtool"], ["base", "tt-si"])
        folder = recorded.write_run(tmp_path / "run", made, recorded.summary(made, rows))
        assert "API-Bank" not in Page(render(tmp_path, folder)).text

    @pytest.mark.parametrize("methods", [["base"], ["tt-si"], ["repair", "sft", "made-up"]])
    def test_few_methods(self, tmp_path: Path, methods: list[str]) -> None:
        made, rows = [], {"sealtool": recorded.tasks(3), "elsewhere": recorded.tasks(2)}
        for name, each in rows.items():
            for place, task in enumerate(each):
                made += [
                    recorded.record(name, task, place, method, Reply("", task.gold))
                    for method in ("base", "tt-si")
                ]
        told = recorded.summary(made, rows).model_dump(mode="json")
        swap = dict(zip(("base", "tt-si"), methods, strict=False))
        told["benchmarks"] = {
            name: {swap[m]: facts for m, facts in each.items() if m in swap}
            for name, each in told["benchmarks"].items()
        }
        lines = [
            line.model_copy(update={"method": swap[line.method]})
            for line in made
            if line.method in swap
        ]
        folder = recorded.write_run(tmp_path / "run", lines, type(recorded.summary([], {}))(**told))
        text = Page(render(tmp_path, folder)).text
        assert all(method in text for method in methods[:2])
        assert "elsewhere" in text

    def test_a_half_written_last_line_is_left_out(self, whole: Path, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "summary.json").write_bytes((whole / "summary.json").read_bytes())
        lines = (whole / "records.jsonl").read_bytes()
        (folder / "records.jsonl").write_bytes(lines[:-20])
        (cut,), (all_,) = results.read([folder]), results.read([whole])
        assert cut.records == all_.records[:-1]
        assert "540 answers" in Page(render(tmp_path, whole)).text
        assert "539 answers" in Page(render(tmp_path, folder)).text

    def test_packed_records_give_the_same_page(self, whole: Path, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "summary.json").write_bytes((whole / "summary.json").read_bytes())
        packed = gzip.compress((whole / "records.jsonl").read_bytes())
        (folder / "records.jsonl.gz").write_bytes(packed)
        assert render(tmp_path, folder) == render(tmp_path, whole)

    def test_without_records_the_summary_is_told(self, whole: Path, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "summary.json").write_bytes((whole / "summary.json").read_bytes())
        text = Page(render(tmp_path, folder)).text
        assert "Seal-Tools" in text
        assert "Fixed and broken items" not in text

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("summary.json", "{", "summary.json is no summary of a run"),
            ("summary.json", None, "cannot read .*summary.json.*`quickstudy eval` wrote"),
            ("records.jsonl", '{"benchmark": 7}\n', "records.jsonl, line 1: no record: "),
            ("records.jsonl", "nonsense\n", "records.jsonl, line 1"),
        ],
    )
    def test_files_of_another_kind_are_an_error(
        self, tmp_path: Path, name: str, content: str | None, told: str
    ) -> None:
        folder = one_item(tmp_path / "run", ("base", right()))
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)
        with pytest.raises(QuickstudyError, match=told):
            results.read([folder])


class TestHostileText:
    def test_stays_text(self, tmp_path: Path) -> None:
        call = {"name": ATTACK, "arguments": {ATTACK: [ATTACK, {ATTACK: None}]}}
        said = {"content": ATTACK, "tool_calls": [call]}
        example = {"request": ATTACK, "source": ATTACK, "reason": ATTACK, **said}
        changes: dict[str, Any] = {
            "id": ATTACK,
            "request": ATTACK,
            "gold": [call],
            "certainty": 0.5,
            "fallback": ATTACK,
            "examples": [example],
            "repaired": [ATTACK],
            "notes": [ATTACK],
            "seconds": {ATTACK: 2.0},
            "draft": {"text": ATTACK, "finished": True, "choices": [], **said},
        }
        task = recorded.tasks(1)[0]
        method = f"tt-si {ATTACK}"
        made = [
            recorded.record(
                "sealtool", task, 0, name, reply, **changes, answer={"content": f"{name}{ATTACK}"}
            )
            for name, reply in (("base", right()), ("tt-si", Reply("?")))
        ]
        told = recorded.summary(
            [line.model_copy(update={"id": task.id}) for line in made],
            {"sealtool": [task]},
            model=ATTACK,
        ).model_dump(mode="json")
        told = {
            **told,
            "benchmarks": {
                ATTACK: {
                    (method if name == "tt-si" else name): facts
                    for name, facts in told["benchmarks"]["sealtool"].items()
                }
            },
            "settings": {method: {ATTACK: ATTACK}, "base": {}},
            "versions": {ATTACK: ATTACK},
        }
        lines = [
            line.model_copy(
                update={
                    "benchmark": ATTACK,
                    "method": method if line.method == "tt-si" else "base",
                }
            )
            for line in made
        ]
        summary = type(recorded.summary([], {})).model_validate(told)
        folder = recorded.write_run(tmp_path / "run", lines, summary)
        page = Page(render(tmp_path, folder))
        assert not {"script", "img"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert page.text.count("<script>alert(1)</script>") > 10
        assert "{{ 7 * 7 }}" in page.text
        table = markdown.tables(results.read([folder]))
        assert not re.search(r"(?<!\\)<\w", table)

    def test_very_long_texts_are_cut(self, tmp_path: Path) -> None:
        long = "x" * 200_000
        call = {"name": long, "arguments": dict.fromkeys(map(str, range(5_000)), long[:9])}
        folder = one_item(
            tmp_path / "run",
            ("base", Reply("?")),
            ("tt-si", right()),
            request=long,
            gold=[call],
            notes=[long],
        )
        html = render(tmp_path, folder)
        assert len(html) < 100_000
        assert "(198,500 characters more)" in html
        assert "4,941 lines more" in html

    def test_writing_from_right_to_left_keeps_to_its_element(self, tmp_path: Path) -> None:
        text = "\u202eسخن المطبخ"
        folder = one_item(tmp_path / "run", ("base", Reply("?")), ("tt-si", right()), request=text)
        assert f'<p class="said" dir="auto">{text}</p>' in render(tmp_path, folder)

    @settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        text=st.text(st.characters(), max_size=40),
        number=st.floats(allow_nan=False, allow_infinity=False),
        loss=st.none() | st.floats(allow_nan=False),
    )
    @example(text="\ud800", number=0.5, loss=None)  # half a surrogate pair, as a key too
    def test_any_text_and_number(
        self, tmp_path: Path, text: str, number: float, loss: float | None
    ) -> None:
        value = {"name": text, "arguments": {text: [text, number]}}
        folder = one_item(
            tmp_path / "run",
            ("base", Reply("?")),
            ("tt-si", right()),
            request=text,
            gold=[value],
            certainty=number,
            threshold=number,
            losses=[loss],
            notes=[text],
        )
        page = Page(render(tmp_path, folder))
        assert "1 fixed" in page.text
        assert not {"script", "img"} & set(page.tags)
        assert not re.search(r"\b(?:nan|inf)\b", " ".join(str(v) for _, v in page.attributes))


class TestThePage:
    def test_is_one_file_without_network(self, html: str) -> None:
        assert not re.search(r"https?:|\burl\(|@import|\bsrc=|<link|<script", html)

    def test_every_link_has_its_anchor(self, html: str) -> None:
        attributes = Page(html).attributes
        links = {value for name, value in attributes if name == "href"}
        ids = [value for name, value in attributes if name == "id"]
        assert len(links) == 7
        assert links == {f"#{value}" for value in ids}
        assert len(ids) == len(set(ids))

    def test_figures_tell_in_words_what_they_show(self, html: str) -> None:
        for tag in re.findall(r"<svg[^>]*>", html):
            assert "aria-hidden" in tag or re.search(r'role="img" aria-label="[^"]{10}', tag)

    def test_equal_runs_give_equal_bytes(self, whole: Path, html: str, tmp_path: Path) -> None:
        assert render(tmp_path, whole) == html

    def test_stays_small(self, html: str) -> None:
        assert len(html) < 700_000


class TestMarkdown:
    def test_tables_have_the_headline_numbers(self, whole: Path) -> None:
        runs = results.read([whole])
        text = markdown.tables(runs)
        told = runs[0].summary.benchmarks["sealtool"]["tt-si"]
        assert told.accuracy is not None
        assert told.ci95 is not None
        low, high = told.ci95
        cell = f"{100 * told.accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        (line,) = re.findall(r"^\| tt-si \|.*\]\s\|$", text, re.MULTILINE)
        assert cell in line
        heads = re.findall(r"^\| (Accuracy|Gain over base|Gain over the best free) \|", text, re.M)
        assert len(heads) == 3
        for block in text.split("\n\n")[1:]:
            widths = {line.count(" | ") for line in block.strip().splitlines()}
            assert widths == {6}

    def test_nothing_can_break_a_table(self, tmp_path: Path) -> None:
        folder = one_item(tmp_path / "run", ("base", right()))
        (run,) = results.read([folder])
        run = dataclasses.replace(run, label="a | b\n<img> [x](y)", badge="|")
        text = markdown.tables([run])
        assert "a \\| b \\<img> [x]\\(y)" in text
        assert "| base (\\|) |" in text
