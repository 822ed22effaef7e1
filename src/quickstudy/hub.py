"""The Hugging Face hub: what its cache on this machine holds, and how a model gets there.

A wrong name or a missing network is told within seconds; a download may take as long as it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quickstudy import checkpoint
from quickstudy.errors import ModelError

PATIENCE = 10.0  # seconds for the hub to answer one small question
_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
_OTHERS = ["*/*", "consolidated*"]  # other formats of the same weights


def cached() -> Iterator[tuple[str, Path]]:
    """Yields (name, folder) of every model whose main revision is completely here."""
    from huggingface_hub.constants import HF_HUB_CACHE

    for model in sorted(Path(HF_HUB_CACHE).glob("models--*")):
        try:
            revision = (model / "refs" / "main").read_text(encoding="utf-8").strip()
            folder = model / "snapshots" / revision
            missing = checkpoint.missing_shards(folder)
        except (OSError, ValueError, ModelError):
            continue
        if not missing and any(folder.glob(checkpoint.WEIGHTS)):
            yield model.name.removeprefix("models--").replace("--", "/"), folder


def download(name: str) -> Path:
    """The folder of a hub model, downloaded if it is not here.

    Raises:
        ModelError: says why the hub did not give it.
    """
    import httpx2
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    hub = constants.ENDPOINT
    here = "`quickstudy models` lists what is here"
    try:
        # snapshot_download alone would ask again and again for a minute before it gives up
        listed = HfApi(endpoint=hub).model_info(name, timeout=PATIENCE).siblings or []
        _check_files(name, [file.rfilename for file in listed])
        with _quiet():
            folder = snapshot_download(
                name,
                allow_patterns=_FILES,
                ignore_patterns=_OTHERS,
                etag_timeout=PATIENCE,
                endpoint=hub,
            )
        return Path(folder)
    except GatedRepoError as error:
        raise ModelError(
            f"{name!r} is gated: accept its terms at {hub}/{name}, then type `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"there is no model {name!r}, neither here nor on {hub} (if it is private, type"
            f" `hf auth login`); {here}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise ModelError(
            f"{name!r} is not here and HF_HUB_OFFLINE forbids a download; unset it; {here}"
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        raise ModelError(
            f"{name!r} is not here and cannot be downloaded from {hub}: "
            f"{str(error) or type(error).__name__}; try again later; {here}"
        ) from error
    except OSError as error:
        raise ModelError(
            f"{name!r} cannot be kept in {constants.HF_HUB_CACHE}: {error.strerror or error}; "
            "set HF_HOME to another folder"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No line for every second try; the progress bars stay."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _check_files(name: str, files: list[str]) -> None:
    if any(file.endswith(".safetensors") and "/" not in file for file in files):
        return
    if any(file.endswith(".gguf") for file in files):
        raise ModelError(
            f"{name!r} holds GGUF files: download one with `hf download {name} FILE.gguf` and "
            "name it with --model"
        )
    raise ModelError(
        f"{name!r} has no safetensors on the hub; name a model that has, or download it and "
        f'convert it: python -c "{checkpoint.CONVERT.format(name)}"'
    )
