"""Running servers. Without the extra `serve` there is nothing to test here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from quickstudy.model import LanguageModel

if TYPE_CHECKING:
    from serving import Running

MISSING = [name for name in ("fastapi", "uvicorn", "prometheus_client") if not find_spec(name)]


class Skipped(pytest.Module):
    def collect(self) -> Any:
        pytest.skip(f"the extra serve is not installed: no {MISSING}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    return Skipped.from_parent(parent, path=module_path) if MISSING else None


@pytest.fixture(scope="session")
def taught(make_tiny: Callable[..., LanguageModel]) -> LanguageModel:
    from serving import teach

    return teach(make_tiny())


@pytest.fixture(scope="module")
def start(taught: LanguageModel) -> Iterator[Callable[..., Running]]:
    """Starts a server with these settings; `teacher` is that of NAME:tt-d."""
    from serving import Running, config

    from quickstudy.improve import Improver

    running: list[Running] = []

    def begin(teacher: Any = None, **stages: Any) -> Running:
        running.append(Running(Improver(taught, config(**stages)), teacher))
        return running[-1]

    with pytest.MonkeyPatch.context() as patch:
        for variable in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            patch.delenv(variable, raising=False)
        yield begin
        for server in running:
            server.close()


@pytest.fixture(scope="module")
def server(start: Callable[..., Running]) -> Running:
    return start()


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="unused", max_retries=0) as made:
        yield made
