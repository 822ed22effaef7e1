"""The built wheel holds the package, all of it and nothing else; its metadata offers the extras."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "quickstudy"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built as `make wheel` does, by way of the source distribution; needs no network."""
    copy = tmp_path_factory.mktemp("repository")
    ignore = shutil.ignore_patterns(
        ".*", "*.egg-info", "build", "dist", "site", "runs", "results", "__pycache__"
    )
    shutil.copytree(ROOT, copy, ignore=ignore, dirs_exist_ok=True)
    build = [sys.executable, "-m", "build", "--no-isolation", str(copy)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_every_file_of_the_package_is_shipped_and_no_other(wheel: zipfile.ZipFile) -> None:
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == {
        f"quickstudy/{path.relative_to(SOURCES).as_posix()}"
        for path in SOURCES.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_it_is_no_empty_package(wheel: zipfile.ZipFile) -> None:
    """Guards the comparison above against reading from nowhere."""
    kinds = {Path(name).suffix for name in wheel.namelist()}
    assert {".py", ".typed", ".jinja", ".jsonl"} <= kinds


def test_the_licence_is_shipped(wheel: zipfile.ZipFile) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_it_installs_the_command(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "quickstudy = quickstudy.cli:main" in wheel.read(name).decode()


def test_extras(metadata: Message) -> None:
    offered = set(metadata.get_all("Provides-Extra", ()))
    assert {"serve", "mlflow", "lm-eval", "ray", "docs", "dev"} <= offered


def test_the_embedded_model_is_no_dependency(metadata: Message) -> None:
    # its own dependencies need a C++ compiler, so it is installed without them, by hand
    needed = metadata.get_all("Requires-Dist", ())
    assert needed
    assert not any("smollm2" in name for name in needed)


def test_torch_is_pinned_alike_everywhere() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (pin,) = [name for name in dependencies if name.startswith("torch==")]
    assert f"install --quiet {pin}\n" in (ROOT / "Makefile").read_text()
