"""The benchmarks' files: which there are, whether a folder holds them, and fetching them.

Nothing here is of the benchmarks' content, and no answer is graded. A fetched file is one that
results were made with, byte for byte, or it is not kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2

from quickstudy.errors import DataError, QuickstudyError
from quickstudy.evals.benchmarks import BENCHMARKS, FILES, DataFile
from quickstudy.evals.benchmarks.benchmark import Malformed, parse_rows, read_rows
from quickstudy.files import write

State = Literal["good", "missing", "changed", "malformed"]
MOST_BYTES = 32 << 20  # of one download; the largest has 4 MB


@dataclass(frozen=True)
class Checked:
    """What a folder holds of one file. A file with the known hash is not read row by row."""

    file: DataFile
    state: State
    rows: int | None = None
    sha256: str | None = None
    malformed: tuple[Malformed, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.file.path,
            "benchmarks": users(self.file),
            "state": self.state,
            "rows": self.rows,
            "expected_rows": self.file.rows,
            "sha256": self.sha256,
            "expected_sha256": self.file.sha256,
            "malformed": [{"row": bad.row, "error": bad.error} for bad in self.malformed],
            "error": self.error,
            "licence": self.file.licence,
            "origin": self.file.origin,
        }


def users(file: DataFile) -> list[str]:
    """The names of the benchmarks that a file is for."""
    return [name for name, benchmark in BENCHMARKS.items() if file in benchmark.files]


def listing() -> list[dict[str, Any]]:
    """Every benchmark as JSON."""
    return [
        {
            "name": benchmark.name,
            "rows": benchmark.rows,
            "files": [file.path for file in benchmark.files],
            "licence": " ".join(dict.fromkeys(file.licence for file in benchmark.files)),
            "origin": " ".join(dict.fromkeys(file.origin for file in benchmark.files)),
        }
        for benchmark in BENCHMARKS.values()
    ]


def check(folder: Path, files: Iterable[DataFile] = FILES) -> list[Checked]:
    """Counts, hashes and malformed rows of each file.

    Raises:
        DataError: if there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}; `quickstudy data --data {folder} --fetch` makes it"
        )
    return [_check(folder, file) for file in files]


def _check(folder: Path, file: DataFile) -> Checked:
    path = folder / file.path
    if not path.exists():
        return Checked(file, "missing", error=f"there is no {path}")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows = read_rows(folder, file)
    except OSError as error:
        return Checked(file, "malformed", error=f"cannot read {path}: {error.strerror}")
    except DataError as error:
        return Checked(file, "malformed", sha256=digest, error=str(error))
    if digest == file.sha256:
        return Checked(file, "good", len(rows), digest)
    malformed = tuple(row for row in parse_rows(rows, file) if isinstance(row, Malformed))
    state: State = "malformed" if malformed else "changed"
    return Checked(
        file, state, len(rows), digest, malformed, "it is not the file that results were made with"
    )


def fetch(
    folder: Path,
    files: Iterable[DataFile] = FILES,
    tell: Callable[[str], None] = lambda line: None,
) -> Mapping[str, str]:
    """Fetches what is missing; files that are there stay as they are.

    Args:
        tell: is given a line for each file that is fetched.

    Returns:
        Why files could not be had, by path; empty if all went well.

    Raises:
        DataError: if the folder cannot be made.
    """
    failed: dict[str, str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}") from error
    timeout = httpx2.Timeout(60.0, connect=10.0)
    with httpx2.Client(timeout=timeout, headers={"Accept-Encoding": "identity"}) as client:
        for file in files:
            if (folder / file.path).exists():
                continue
            try:
                content = _content(client, folder, file)
                write(folder / file.path, content)
                tell(f"fetched {file.path}: {len(content):,} bytes, {file.rows} rows")
            except QuickstudyError as error:
                failed[file.path] = str(error)
    return failed


def _content(client: httpx2.Client, folder: Path, file: DataFile) -> bytes:
    if not file.urls:
        raise DataError(
            f"{file.path} stands nowhere as it is: it was {file.origin}; copy it from a machine"
            " that has it"
        )
    parts = [_download(client, url) for url in file.urls]
    try:
        content = file.rebuild(parts, folder) if file.rebuild else parts[0]
    except (KeyError, TypeError, ValueError, SyntaxError, AttributeError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{file.path} cannot be built of what was fetched: {what}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise DataError(
            f"{file.path} is not what it was: its sha256 is {digest}, wanted {file.sha256}; it was"
            " not kept"
        )
    return content


def _download(client: httpx2.Client, url: str) -> bytes:
    content = bytearray()
    try:
        with client.stream("GET", url) as response:
            if response.status_code != 200:
                raise DataError(f"{url} answered {response.status_code}")
            for piece in response.iter_raw():
                content += piece
                if len(content) > MOST_BYTES:
                    raise DataError(f"{url} sends more than {MOST_BYTES >> 20} MB; left there")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        what = str(error) or type(error).__name__
        raise DataError(f"cannot fetch {url}: {what}") from error
    return bytes(content)
