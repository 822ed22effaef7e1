"""Load on a running server: throughput and latencies by traffic and number of clients.

    python benchmarks/load.py --model smollm2 --out runs/load

Starts `quickstudy serve` (and, with --beside, `transformers serve`) with one and the same folder
of weights, and locust (`load_user.py`) in a process of its own. Rows are written as they come:

    {"server": "quickstudy", "traffic": "mixed", "clients": 16, "requests": 90, "failures": 0,
     "per_second": 3.0, "tokens_per_second": 70.1, "p50": 4.1, "p95": 9.9, "p99": 11.0,
     "first_p50": 0.8, "queued_p50": 0.01, ...}      seconds; from the client, but for `queued`

and what the rounds come to, as medians with the least and the most, to `summary.json`. A folder
that holds rows is added to only with --more, say to run other traffic for a longer time.

Traffic: `base` (NAME:base, plain chat, streamed; the one that transformers serve gets as well, in
turn, cell by cell), `sure` (judged, never practised), `unsure` (always practised), `mixed` (one in
four is unsure; its rows are told by kind as well).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

TRAFFIC = ("base", "sure", "unsure", "mixed")
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="smollm2", help="what quickstudy's --model takes")
    parser.add_argument("--dtype", default="auto", help="of both servers: auto, float32, bfloat16")
    parser.add_argument("--traffic", nargs="+", choices=TRAFFIC, default=list(TRAFFIC))
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=int, default=60, help="of each cell")
    parser.add_argument("--beside", action="store_true", help="base traffic on transformers serve")
    parser.add_argument("--rounds", type=int, default=1, help="the whole table so often")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each server")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/load"))
    parser.add_argument("--more", action="store_true", help="add to the rows that lie in --out")
    arguments = parser.parse_args()
    if (arguments.out / "load.jsonl").exists() and not arguments.more:
        parser.error(f"{arguments.out} holds rows: name another --out, or pass --more")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        dtype = save(arguments.model, arguments.dtype, folder)
        ours = quickstudy(folder, dtype, arguments.threads, arguments.settings)
        hosts = {"quickstudy": stack.enter_context(ours)}
        if arguments.beside:
            theirs = transformers(folder, dtype, arguments.threads)
            hosts["transformers"] = stack.enter_context(theirs)
        models = {"quickstudy": "model", "transformers": str(folder)}
        with (arguments.out / "load.jsonl").open("a", encoding="utf-8") as rows:
            for round_ in range(arguments.rounds):
                for traffic in arguments.traffic:
                    for clients in arguments.clients:
                        for server, host in hosts.items():
                            if server == "transformers" and traffic != "base":
                                continue
                            cell = {"server": server, "traffic": traffic, "clients": clients}
                            cell |= {"model": arguments.model, "dtype": dtype, "round": round_}
                            cell |= {"threads": arguments.threads, "lasted": arguments.seconds}
                            for row in measure(host, models[server], cell, arguments.seconds):
                                rows.write(json.dumps(row) + "\n")
                                rows.flush()
                                print(line(row), flush=True)
    summarize(arguments.out)


def save(model: str, dtype: str, folder: Path) -> str:
    """Writes the model as a folder that both servers read; returns its type of numbers."""
    from quickstudy.config import ModelConfig
    from quickstudy.model import LanguageModel

    loaded = LanguageModel.load(model, ModelConfig.model_validate({"dtype": dtype}))
    loaded.network.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return str(loaded.dtype).removeprefix("torch.")


@contextmanager
def quickstudy(folder: Path, dtype: str, threads: int, settings: list[str]) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-c", "from quickstudy.cli import main; main()", "serve"]
    command += ["--model", str(folder), "--port", str(port), "--set", f"model.dtype={dtype}"]
    for setting in ("serve.name=model", *settings):
        command += ["--set", setting]
    with running(command, f"http://127.0.0.1:{port}/health/ready", threads):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def transformers(folder: Path, dtype: str, threads: int) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--dtype", dtype, "--device", "cpu"]
    with running(command, f"http://127.0.0.1:{port}/health", threads):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running(command: list[str], ready: str, threads: int) -> Iterator[None]:
    """A server's process, from when it is ready."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    try:
        until = time.monotonic() + 300
        while not answers(ready):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"it does not start: {' '.join(command)}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()


def measure(host: str, model: str, cell: dict[str, Any], seconds: int) -> list[dict[str, Any]]:
    """Runs locust against a server; a row for all requests, and one a kind if there are several."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        environment = {**os.environ, "LOAD_TRAFFIC": cell["traffic"], "LOAD_MODEL": model}
        environment |= {"LOAD_OUT": str(found), "LOAD_SERVER": cell["server"]}
        clients = str(cell["clients"])
        command = [sys.executable, "-m", "locust", "-f", str(HERE / "load_user.py"), "--headless"]
        command += ["--host", host, "-u", clients, "-r", clients, "-t", f"{seconds}s"]
        command += ["--stop-timeout", "600", "--only-summary", "--loglevel", "ERROR"]
        quiet = subprocess.DEVNULL
        subprocess.run(command, env=environment, check=False, stdout=quiet, stderr=quiet)
        return [{**cell, **row} for row in json.loads(found.read_text())]


def summarize(out: Path) -> None:
    """Writes summary.json of all rows that lie in load.jsonl."""
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for text in (out / "load.jsonl").read_text("utf-8").splitlines():
        row = json.loads(text)
        key = tuple(row[part] for part in ("model", "traffic", "kind", "clients", "server"))
        cells.setdefault(key, []).append(row)
    told = []
    for (model, traffic, kind, clients, server), rows in cells.items():
        cell: dict[str, Any] = {"model": model, "traffic": traffic, "kind": kind}
        cell |= {"clients": clients, "server": server, "rounds": len(rows)}
        for count in ("requests", "failures", "practised"):
            if any(count in row for row in rows):
                cell[count] = sum(row.get(count, 0) for row in rows)
        for name in rows[0]:
            if name.endswith(("per_second", "p50", "p95", "p99")):
                cell[name] = spread([row.get(name) for row in rows])
        theirs = cells.get((model, traffic, kind, clients, "transformers"), [])
        if server == "quickstudy" and theirs:  # a round's cells were taken one after the other
            rates = {row["round"]: row["tokens_per_second"] for row in theirs}
            ratios = [
                row["tokens_per_second"] / rates[row["round"]]
                for row in rows
                if rates.get(row["round"])
            ]
            cell["tokens_per_second_over_transformers"] = spread(ratios)
        told.append(cell)
    (out / "summary.json").write_text(json.dumps({"cells": told}, indent=1, allow_nan=False) + "\n")


def spread(values: list[float | None]) -> dict[str, float] | None:
    """Of the values there are: a cell without one good answer has none."""
    ordered = sorted(value for value in values if value is not None and not math.isnan(value))
    if not ordered:
        return None
    found = {"median": statistics.median(ordered), "least": ordered[0], "most": ordered[-1]}
    return {name: round(value, 4) for name, value in found.items()}


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['server']:12} {row['traffic']:7} {row['kind']:7} {row['clients']:3} clients "
        f"{row['requests']:5} requests {row['failures']} failed {row['per_second']:6.2f}/s "
        f"{row['tokens_per_second']:7.1f} tokens/s  p50 {row['p50']:.2f} p95 {row['p95']:.2f} "
        f"p99 {row['p99']:.2f} s, first p50 {row['first_p50']:.2f} s"
    )


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main()
