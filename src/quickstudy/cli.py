"""The command line: thin. Reads arguments, calls the library, prints."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from quickstudy import catalog, files, openmp, reader, terminal
from quickstudy.config import Config, settings
from quickstudy.errors import ConfigError, QuickstudyError, RequestError

if TYPE_CHECKING:
    from quickstudy.improve import Improver

log = logging.getLogger(__name__)
app = typer.Typer(
    help="A small language model that practises on the spot: it notices that it is unsure, writes"
    " itself a few practice problems, trains a throw-away adapter, answers, and forgets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console()
err = Console(stderr=True)

Model = Annotated[
    str,
    typer.Option(
        help="a hub id, a model folder, a GGUF file, smollm2 (the embedded one) or auto"
        " (the largest that is here; `quickstudy models` lists them)"
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.FIELD=VALUE", help="a setting; `quickstudy config` lists"),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="a TOML file of settings")]


@app.command()
def answer(
    request: Annotated[
        str,
        typer.Option(
            help="a file in OpenAI chat format ({'messages': [...], 'tools': [...]}), one object"
            " or JSON lines; - reads standard input"
        ),
    ],
    model: Model = "auto",
    method: Annotated[
        str | None,
        typer.Option(
            help="base (no practice), tt-si (the model teaches itself), tt-d (a teacher does),"
            " tt-icl (practice in the context), tt-si-paper (the paper's recipe)"
            " (default: tt-si)"
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="who writes practice under tt-d: http://host:8000/v1#model (any OpenAI-compatible"
            " server; key from OPENAI_API_KEY) or what --model takes"
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="take unknown and invented arguments out of answers")
    ] = False,
    set_: Set = None,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="show the whole cycle")] = False,
) -> None:
    """Answer requests, practising first where the model is unsure.

    Exit status: 0, or 1 if some request could not be answered, or 2 if nothing could start.
    """
    if as_json and explain:
        raise typer.BadParameter("--json and --explain exclude each other")
    if teacher is not None and method not in (None, "tt-d"):
        raise ConfigError(f"--teacher contradicts --method {method}; leave one of them out")
    _said_once({"method": method}, set_)
    loaded = Config.load(
        config,
        [*_teacher(teacher), *(set_ or ())],
        method=method or ("tt-d" if teacher else None),
        repair=repair or None,
    )
    requests = reader.read_requests(_read(request))
    # a bad request must not cost the wait for a model that would then answer nothing
    good = any(not isinstance(item, reader.BadRequest) for item in requests)
    improver = _improver(model, loaded) if good else None
    failed = False
    many = len(requests) > 1 and err.is_terminal
    for item in track(requests, "answering", console=err, disable=not many):
        try:
            if isinstance(item, reader.BadRequest):
                raise RequestError(item.error)
            assert improver is not None
            answered = improver.answer_request(item)
        except Exception as error:  # one request's fault must not cost the others their answers
            failed = True
            if not isinstance(error, RequestError):
                log.exception("request %s", item.id)
            bad = reader.BadRequest("" if item.id is None else item.id, str(error))
            if as_json:
                _line(bad.to_json())
            else:
                told = f"request {bad.id}: {error}"
                err.print(told, style="red", markup=False, highlight=False, soft_wrap=True)
            continue
        if as_json:
            _line(answered.to_json())
        elif explain:
            terminal.explain(out, answered)
        else:
            print(terminal.reply_text(answered.content, answered.tool_calls), flush=True)
    raise typer.Exit(1 if failed else 0)


@app.command()
def demo(
    model: Model = catalog.EMBEDDED,
    set_: Set = None,
    config: ConfigFile = None,
    folder: Annotated[Path, typer.Option("--out", help="episodes and report go here")] = Path(
        "runs/demo"
    ),
) -> None:
    """Watch the cycle on twelve requests that ship with quickstudy, and get a report."""
    from quickstudy.evals import demo as demonstration
    from quickstudy.evals.demo_report import write_report

    # 135M parameters learn too little from two steps at the rate that suits larger models
    rate = ["learning.learning_rate=3e-3"] if model == catalog.EMBEDDED else []
    loaded = Config.load(config, [*rate, *(set_ or ())])
    demonstration.prepare(folder)  # before the minutes of work, not after
    improver = _improver(model, loaded)
    lines = demonstration.run(
        improver, folder, lambda items: track(items, "practising", console=err)
    )
    note = _demo_note(improver.model.name)
    totals = demonstration.totals(lines)
    write_report(
        lines,
        folder / "report.html",
        title="quickstudy demonstration",
        model=improver.model.name,
        settings=loaded.model_dump(mode="json", exclude={"serve"}),
        note=f"{totals} {note}",
    )
    out.print(terminal.demo_table(lines, out.width))
    out.print(totals, highlight=False)
    out.print(note, style="dim", highlight=False)
    out.print(f"open {folder / 'report.html'}", style="bold", highlight=False)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="what `quickstudy eval --out` was given; several are told side by side",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Option("--out", help="the page to write (default: report.html in the first folder)"),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="print the headline tables instead")
    ] = False,
) -> None:
    """Tell what runs of `quickstudy eval` have shown, as one HTML page; no model is called."""
    if markdown and file is not None:
        raise typer.BadParameter("--markdown and --out exclude each other")
    from quickstudy.evals import markdown as tables
    from quickstudy.evals import report as pages
    from quickstudy.evals import results

    runs = results.read(folders)
    if markdown:
        print(tables.tables(runs), end="")
        return
    file = file or folders[0] / "report.html"
    pages.write_report(runs, file)
    out.print(f"open {file}", style="bold", highlight=False, markup=False, soft_wrap=True)


@app.command()
def calibrate(
    requests: Annotated[
        str,
        typer.Option(
            help="known-good requests in chat format, JSON lines; a row's `expected` (the right"
            " calls) makes it known-good only if the draft is right; - reads standard input"
        ),
    ],
    file: Annotated[Path, typer.Option("--out", help="the calibration file to write")],
    model: Model = "auto",
    trigger_rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="share of requests that practise (default: 0.3)"),
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="error among sure answers at most; needs `expected`"),
    ] = None,
    set_: Set = None,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the file's thresholds")] = False,
) -> None:
    """Learn from known-good requests when the model counts as unsure: margins and thresholds."""
    if trigger_rate is not None and risk is not None:
        raise typer.BadParameter("--trigger-rate and --risk exclude each other")
    loaded = Config.load(config, set_ or ())
    if loaded.awareness.estimator == "reference":  # its file is what is made here
        loaded = Config.load(config, [*(set_ or ()), "awareness.estimator=margin"])
    from quickstudy.awareness import calibrate as calibration

    rows = calibration.read_rows(_read(requests))
    if risk is not None and all(row.expected is None for row in rows):
        raise RequestError("--risk needs rows with the right calls: add `expected` to them")
    files.check(file)  # before the minutes of work, not after
    improver = _improver(model, loaded)
    observed = [
        calibration.observe(improver.decoder, improver.draft(row.request), row.expected, loaded)
        for row in track(rows, "drafting", console=err, disable=not err.is_terminal)
    ]
    made = calibration.calibrate(
        observed, model=improver.model.name, config=loaded, trigger_rate=trigger_rate, risk=risk
    )
    files.write(file, made.dumps())
    if as_json:
        _line(made.model_dump(mode="json", exclude={"margins"}))
        return
    out.print(terminal.calibration_table(made))
    for name, threshold in made.thresholds.items():
        reference = f" --set awareness.reference={file}" if name == "reference" else ""
        out.print(
            f"{name}: --set awareness.estimator={name}{reference}"
            f" --set awareness.threshold={threshold.tau}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


@app.command()
def bench(
    model: Model = "auto",
    folder: Annotated[Path, typer.Option("--out", help="records, summary and figure")] = Path(
        "runs/bench"
    ),
    repeats: Annotated[
        int,
        typer.Option(
            min=1,
            help="rounds of each comparison; intervals need 6. Rounds that begin after 10 minutes"
            " are left out, beyond the third",
        ),
    ] = 6,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="one row; repeat it for several. With 0.5B parameters on 2 cores, about: limits"
            " 1 minute, practice 45, step 12, curves 4, decode 3, whole 10, pipeline 40,"
            " together 30, memory 30"
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="a smoke test of minutes: every row, but nothing worth a figure"
        ),
    ] = False,
) -> None:
    """Time practice and answers against the usual way and against the limits of this machine.

    All rows take about three hours with 0.5B parameters; auto takes the largest model that is here.
    Ctrl-C keeps what was measured.
    """
    try:
        from quickstudy.speed import bench as benchmark
    except ModuleNotFoundError as error:
        raise QuickstudyError(
            f"the benchmark needs {error.name}: pip install 'quickstudy[bench]'"
        ) from error
    from quickstudy.speed.report import table

    told = benchmark.run(
        model, folder, err, repeats=repeats, threads=threads, quick=quick, only=only or ()
    )
    out.print(table(told))
    out.print(f"open {folder / 'speed.svg'}", style="bold", highlight=False)


@app.command()
def serve(
    model: Model = "auto",
    host: Annotated[
        str | None, typer.Option(help="address to listen at (default: 127.0.0.1)")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="port to listen at (default: 8000)")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="what the bare model name does, as in `answer` (default: tt-si)"),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="who writes practice, as in `answer`")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="as in `answer`")] = False,
    set_: Set = None,
    config: ConfigFile = None,
    new_key: Annotated[
        str | None,
        typer.Option("--new-key", metavar="NAME", help="print a new key and its settings, and end"),
    ] = None,
) -> None:
    """Serve the cycle behind OpenAI's chat API, until Ctrl-C or SIGTERM."""
    if missing := [name for name in ("fastapi", "uvicorn", "prometheus_client") if not _has(name)]:
        raise ConfigError(
            f"serve needs {', '.join(missing)}; install them with: pip install 'quickstudy[serve]'"
        )
    if new_key is not None:
        from quickstudy.serve.keys import new_settings

        print(new_settings(new_key))
        return
    where = {"serve.host": host, "serve.port": port}
    given = [f"{name}={value}" for name, value in where.items() if value is not None]
    _said_once({"method": method, **where}, set_)
    settings = [*_teacher(teacher), *given, *(set_ or ())]
    loaded = Config.load(config, settings, method=method, repair=repair or None)
    improver = _improver(model, loaded)
    from quickstudy.serve.server import run

    run(improver)


@app.command("eval")
def evaluate(
    benchmark: Annotated[
        list[str],
        typer.Option(
            help="repeats; nexusraven, sealtool, toolalpaca, apibank (or apibank_l1, apibank_l2),"
            " abstain"
        ),
    ],
    data: Annotated[Path, typer.Option(help="the folder of the benchmarks' files")],
    folder: Annotated[
        Path, typer.Option("--out", help="records and summary; a run that is there goes on")
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="repeats; base (always), base-unconstrained, repair, majority, reconsider, icl,"
            " sft, sft-single, tt-si, tt-si-paper, tt-d, tt-icl, other-request, certain-only,"
            " adapt-all, no-synthesis, no-verification, no-reset, oracle; +repair after any"
        ),
    ] = None,
    model: Model = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, help="seeded random rows of each benchmark (default: all)")
    ] = None,
    offset: Annotated[
        int, typer.Option(min=0, help="passes over that many of them, for rows not used before")
    ] = 0,
    seed: Annotated[
        int, typer.Option(help="which rows; also of the methods, unless --set seed=N")
    ] = 0,
    teacher: Annotated[
        str | None, typer.Option(help="who writes practice under tt-d: as in `answer`")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="answers that majority draws (default: as many as tt-si's seconds buy)"
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="record scores of tool names and samples, to compare estimators later"
        ),
    ] = False,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="also log the summary there; needs quickstudy[mlflow]"),
    ] = None,
    set_: Set = None,
    config: ConfigFile = None,
) -> None:
    """Measure methods on benchmarks, paired and with intervals; resumes where it stopped."""
    from quickstudy.evals.plan import Plan
    from quickstudy.evals.progress import Progress
    from quickstudy.evals.run import evaluate as run

    if mlflow is not None:
        from quickstudy.evals import tracking

        tracking.check()  # before the hours of work, not after
    plan = Plan(
        model=model,
        data=data,
        out=folder,
        benchmarks=benchmark,
        methods=method or ["tt-si"],
        limit=limit,
        offset=offset,
        seed=seed,
        overrides=[*_teacher(teacher), *(set_ or ())],
        file=config,
        samples=samples,
        probe=probe,
    )
    with Progress(err) as progress:
        summary = run(plan, progress)
    if mlflow is not None:
        tracking.log(summary, folder, mlflow)
    for name in summary.benchmarks:
        out.print(terminal.summary_table(name, summary))
    out.print(f"records and summary: {folder}", style="dim", highlight=False, soft_wrap=True)


@app.command("config")
def show_config() -> None:
    """Every setting, its default and its meaning."""
    out.print(terminal.settings_table(settings()))
    out.print(
        "Set them with --set learning.rank=8, in a TOML file (--config FILE), or as environment"
        " variables like QUICKSTUDY_LEARNING__RANK=8.",
        highlight=False,
    )


@app.command()
def models(set_: Set = None, config: ConfigFile = None) -> None:
    """The models that are on this machine."""
    table = Table(pad_edge=False)
    for heading in ("--model", "kind", "size", "path"):
        table.add_column(heading, overflow="fold")
    for source in catalog.find(Config.load(config, set_ or ()).model.cache_dir):
        table.add_row(source.name, source.kind, f"{source.size / 1e6:,.0f} MB", str(source.path))
    out.print(table)


@app.command("data")
def show_data(
    folder: Annotated[
        Path | None, typer.Option("--data", help="check the files of this folder")
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="first fetch what the folder lacks (needs a network)")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """The benchmarks, and whether a folder holds their files as results were made with them.

    Exit status: 0, or 1 if a file is missing, changed or malformed.
    """
    from quickstudy.evals import data

    if folder is None:
        if fetch:
            raise ConfigError("--fetch needs a folder to fetch into; name it with --data")
        if as_json:
            _line({"benchmarks": data.listing()})
        else:
            out.print(terminal.benchmarks_table(data.listing()))
        return
    failed = data.fetch(folder, tell=_say) if fetch else {}
    checked = [file.to_json() for file in data.check(folder)]
    for file in checked:
        file["error"] = failed.get(file["path"], file["error"])
    if as_json:
        _line({"folder": str(folder), "files": checked})
    else:
        out.print(terminal.files_table(checked))
        for line in terminal.file_faults(checked):
            _say(line)
    raise typer.Exit(0 if all(file["state"] == "good" for file in checked) else 1)


def main() -> None:
    """Runs the command; an error of ours is one clear line and exit status 2, Ctrl-C is 130."""
    openmp.wait_briefly()
    warnings.showwarning = lambda message, *_, **__: err.print(
        f"warning: {message}", style="yellow", markup=False
    )
    try:
        app()
        return
    except QuickstudyError as error:
        told, status = str(error), 2
    except BrokenPipeError:  # the reader of our output has left
        told, status = "", 1
    except OSError as error:  # files are told of where they are opened: this is the output
        told, status = f"cannot write the output: {error}; send it somewhere else", 2
        _abandon_output()
    except KeyboardInterrupt:
        told, status = "stopped", 130
    except SystemExit as end:
        if end.code != 130:  # what typer makes of Ctrl-C
            raise
        told, status = "stopped", 130
    if told:
        err.print(f"quickstudy: {told}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(status)


def _abandon_output() -> None:
    """Python flushes standard output at its end, and would complain a second time."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _teacher(spec: str | None) -> list[str]:
    """`--teacher` as settings, like those of --set."""
    if spec is None:
        return []
    from quickstudy.teaching.teacher import parse_teacher

    return [f"teacher.{field}={value}" for field, value in parse_teacher(spec).items()]


def _said_once(options: Mapping[str, object], set_: list[str] | None) -> None:
    """Refuses a --set of what an option of its own sets: one of them would win in silence."""
    for setting in set_ or ():
        name = setting.partition("=")[0].strip()
        if options.get(name) is not None:
            option = name.rpartition(".")[2]
            raise ConfigError(f"--{option} contradicts --set {setting}; leave one of them out")


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _improver(model: str, config: Config) -> Improver:
    catalog.resolve(model, config.model.cache_dir)
    # torch and transformers take seconds to import: not for --help, config or a wrong name
    with err.status(Text(f"loading {model}")):
        from quickstudy.improve import Improver

        return Improver.load(model, config)


def _read(request: str) -> str:
    try:
        if request == "-":
            return sys.stdin.read().removeprefix("\ufeff")
        return Path(request).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else _no_text(error)
        raise RequestError(f"cannot read {request}: {reason}") from error


def _no_text(error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return f"it is not UTF-8 text (byte {byte:#x} at {error.start}); save it as UTF-8"


def _say(line: str) -> None:
    err.print(line, markup=False, highlight=False, soft_wrap=True)


def _line(value: object) -> None:
    # half a surrogate pair, which JSON can spell, cannot be printed
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
    print(text, flush=True)


def _demo_note(model: str) -> str:
    if model != catalog.EMBEDDED:
        return f"Model: {model}."
    return (
        "SmolLM2-135M is a demonstration: it copies short values into simple calls, confuses"
        " similar tools, makes up optional arguments and does not see when no tool fits. A better"
        " model does better: quickstudy demo --model FILE.gguf"
    )
