"""What a person sees in the terminal: an episode explained, the demonstration's table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from quickstudy.types import STAGES, Answer, ToolCall

if TYPE_CHECKING:
    from quickstudy.awareness.reference import Calibration
    from quickstudy.evals.records import Summary


def told(calls: Iterable[ToolCall]) -> str:
    """Calls as `name(argument="value")`, for people."""
    return "; ".join(
        f"{call.name}({', '.join(f'{k}={_json(v)}' for k, v in call.arguments.items())})"
        for call in calls
    )


def reply_text(content: str, calls: Iterable[ToolCall]) -> str:
    """A reply for the terminal: its words, then a call a line as JSON."""
    return "\n".join(filter(None, [content, *(_json(call.to_json()) for call in calls)]))


def explain(console: Console, answer: Answer) -> None:
    """Prints the whole cycle of one answer."""
    episode = answer.episode
    parts: list[Any] = [Text("Draft", style="bold"), Text(_reply(episode.draft))]
    if episode.certainty is not None:
        sure = episode.certainty >= episode.threshold
        sign, verdict = ("≥", "sure: the draft is the answer") if sure else ("<", "unsure")
        parts += [
            Text(f"\nCertainty {episode.certainty:.3f} {sign} {episode.threshold}", style="bold"),
            Text(verdict),
        ]
    for candidate in episode.candidates:
        parts.append(Text(f"  log P {candidate.log_prob:8.3f}  …{candidate.text[-70:]!r}", "dim"))
    if episode.examples:
        parts.append(Text("\nPractice", style="bold"))
        for example in episode.examples:
            right = told(example.tool_calls) or example.content
            parts.append(Text(f"  {example.user_text}\n    → {right}"))
    if episode.rejected:
        parts.append(Text("\nRejected", style="bold"))
        for rejected in episode.rejected:
            parts.append(
                Text(f"  {rejected.example.user_text}\n    ✗ {rejected.reason}", style="dim")
            )
    if episode.losses:
        losses = " → ".join(f"{loss:.3f}" for loss in episode.losses)
        parts.append(Text.assemble(("\nLoss ", "bold"), losses, " nats a token"))
    if episode.fallback:
        without = ("\nAnswered without practice: ", "bold yellow")
        parts.append(Text.assemble(without, episode.fallback))
    for heading, lines in (("Repaired", episode.repaired), ("Notes", episode.notes)):
        if lines:
            parts += [Text(f"\n{heading}", style="bold"), *(Text(f"  {line}") for line in lines)]
    parts += [Text("\nAnswer", style="bold"), Text(reply_text(answer.content, answer.tool_calls))]
    spent = "  ".join(f"{s} {episode.seconds[s]:.2f}" for s in STAGES if s in episode.seconds)
    parts.append(Text(f"\nSeconds  {spent}", style="dim"))
    console.print(Panel(Group(*parts), title=Text(f"request {answer.id}"), title_align="left"))


def demo_table(lines: Sequence[Mapping[str, Any]], width: int) -> Table:
    """One row a request, in `width` columns; a line is what `evals.demo.graded` gives."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("request", no_wrap=True)
    for heading in ("sure", "practised", "before", "after"):
        table.add_column(heading, no_wrap=True)
    for heading in ("draft", "write", "train", "final", "all"):
        table.add_column(heading, justify="right", min_width=5)
    table.caption = "before, after: is the draft, is the answer right. The rest: seconds by stage."
    room = max(12, width - 68)  # what the other columns leave
    for line in lines:
        episode, seconds = line["episode"], line["episode"]["seconds"]
        certainty = episode["certainty"]
        table.add_row(
            Text(
                line["request"]
                if len(line["request"]) <= room
                else line["request"][: room - 1] + "…"
            ),
            "–" if certainty is None else f"{certainty:.2f}",
            "yes" if episode["practised"] else "fell back" if episode["fallback"] else "no",
            _mark(line["draft_correct"]),
            _mark(line["correct"]),
            f"{seconds['prefill'] + seconds['draft']:.1f}",
            *(f"{seconds[stage]:.1f}" for stage in ("synthesis", "practice", "answer")),
            f"{sum(seconds.values()):.1f}",
        )
    return table


def calibration_table(made: Calibration) -> Table:
    """One row an estimator: its threshold, and what it did on the requests it was chosen on."""
    kinds = ", ".join(f"{kind} {margins.n}" for kind, margins in made.margins.items())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.title = f"{made.known_good} of {made.requests} drafts are known to be good"
    table.caption = f"reference margins: {kinds}"
    for heading in ("estimator", "threshold", "practise", "wrong among sure"):
        table.add_column(heading, no_wrap=True)
    for name, threshold in made.thresholds.items():
        wrong = threshold.wrong_and_sure
        table.add_row(
            name,
            f"{threshold.tau:.4g}",
            f"{threshold.practised:.0%}",
            "not known" if wrong is None else f"{wrong} of {threshold.sure}",
        )
    return table


def summary_table(benchmark: str, summary: Summary) -> Table:
    """One row a method of one benchmark: accuracy and paired gains with their intervals."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    best = summary.best_free[benchmark]
    table.title = f"{benchmark}, {summary.model.name}"
    table.caption = f"points, with 95% intervals; the best of what needs no training is {best}"
    for heading in ("method", "n", "accuracy", "vs base", "fixed/broken", f"vs {best}", "s"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "method" else "right")
    for name, method in summary.benchmarks[benchmark].items():
        gain, free = method.delta_vs_base, method.delta_vs_best_free
        table.add_row(
            name,
            str(method.n),
            _points(method.accuracy, method.ci95),
            _points(gain.mean, gain.ci95, sign="+") if gain else "",
            f"{gain.fixed}/{gain.broken}" if gain else "",
            _points(free.mean, free.ci95, sign="+") if free else "",
            f"{method.seconds:.1f}",
        )
    return table


def settings_table(settings: Iterable[tuple[str, Any, str]]) -> Table:
    table = Table(show_lines=False, pad_edge=False)
    for heading in ("setting", "default", "meaning"):
        table.add_column(heading, overflow="fold")
    for name, default, meaning in settings:
        table.add_row(name, Text(str(default)), Text(meaning))
    return table


def benchmarks_table(benchmarks: Iterable[Mapping[str, Any]]) -> Table:
    """One row a benchmark, as `evals.data.listing` tells it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("benchmark", no_wrap=True)
    table.add_column("rows", justify="right")
    for heading in ("files", "licence", "source"):
        table.add_column(heading, overflow="fold")
    for told in benchmarks:
        cells = ("\n".join(told["files"]), told["licence"], told["origin"])
        table.add_row(told["name"], str(told["rows"]), *map(Text, cells))
    table.caption = "Check a folder with --data DIR; add --fetch to fetch what it lacks."
    return table


def files_table(files: Iterable[Mapping[str, Any]]) -> Table:
    """One row a file, as `evals.data.Checked.to_json` tells it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    for heading in ("rows", "malformed"):
        table.add_column(heading, justify="right")
    for heading in ("sha256", "state", "for"):
        table.add_column(heading, overflow="fold")
    for told in files:
        rows, digest = told["rows"], told["sha256"]
        counted = f"{rows} of {told['expected_rows']}" if rows is not None else "–"
        table.add_row(
            Text(told["path"]),
            counted,
            str(len(told["malformed"])),
            digest[:12] if digest else "–",
            Text(told["state"], style="green" if told["state"] == "good" else "red"),
            ", ".join(told["benchmarks"]),
        )
    return table


def file_faults(files: Iterable[Mapping[str, Any]], most: int = 3) -> Iterator[str]:
    """What is wrong with files, in lines; of each at most a few malformed rows."""
    for told in files:
        if told["error"]:
            yield f"{told['path']}: {told['error']}"
        for bad in told["malformed"][:most]:
            yield f"{told['path']}, row {bad['row']}: {bad['error']}"
        if len(told["malformed"]) > most:
            yield f"{told['path']}: {len(told['malformed']) - most} more rows are malformed"


def _points(mean: float | None, ci95: tuple[float, float] | None, sign: str = "") -> str:
    """A share as points of a hundred: `+5.5 (1.0 to 10.0)`."""
    if mean is None or ci95 is None:
        return ""
    low, high = (100 * limit for limit in ci95)
    return f"{100 * mean:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def _reply(reply: Any) -> str:
    return reply_text(reply.content, reply.tool_calls) or "(nothing)"


def _mark(right: bool) -> str:
    return "[green]✓[/]" if right else "[red]✗[/]"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
