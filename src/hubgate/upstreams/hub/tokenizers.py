"""Counts the tokens of a remote model, with the tokenizer of its repository."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from hubgate.domain.endpoint import Endpoint, Facts, Source, Target, TokenCounts
from hubgate.domain.errors import RuntimeFailed, StoreFailed
from hubgate.domain.ports import Counter, SharedFiles
from hubgate.domain.secret import Secret
from hubgate.files import create_private_folder, write_private
from hubgate.runtime.model.files import TOKENIZER, TokenizerBroken
from hubgate.runtime.model.spec import read_max_tokens
from hubgate.upstreams.local.files import COMMIT, fetch_files, kept_model, packaged
from hubgate.upstreams.named_files import in_own_thread

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FETCH_SECONDS = 5.0
"""How long a registration waits for the Hub. A slow download continues, and the next registration finds it done."""
_LIMIT_FILES = ("config.json", "sentence_bert_config.json", "tokenizer_config.json")
_REPOSITORY = re.compile(r"(?!.*\.gguf$)[\w.-]+/[\w.-]+", re.ASCII)  # llama.cpp reports the path of its file
NAME_MISSING = "The server does not report a model of the Hub: set [model], or [hub_model] if [model] is the server's own name for it."
_NOT_INSTALLED = 'It needs tokenizers, which is not installed: pip install "hubgate[local]".'
_SEE_LOG = "hubgate's log has the reason."

_log = logging.getLogger(__name__)


class TokenizerFiles:
    """Implements `domain.ports.Counters` for remote and local models.

    Args:
        home: the folder for tokenizers.
        hf_endpoint: the Hub's URL, if it is not the default.
        timeout: seconds to wait for the Hub.
        shared: the files of all gateways, if there may be several.
    """

    def __init__(
        self,
        home: Path,
        *,
        hf_endpoint: str | None = None,
        timeout: float = FETCH_SECONDS,
        shared: SharedFiles | None = None,
    ) -> None:
        self._home = home
        self._hf_endpoint = hf_endpoint
        self._timeout = timeout
        self._shared = shared
        self._counters: WeakValueDictionary[tuple[str, str | None], TokenizerCounter] = WeakValueDictionary()

    async def learn(self, target: Target) -> Facts:
        """Fetch the tokenizer. Returns the endpoint's facts, with the model's limit if its server does not report it."""
        endpoint, facts = target.endpoint, target.endpoint.facts
        if endpoint.source not in {Source.DEDICATED, Source.ROUTER}:
            return facts
        named = repository_named(endpoint)
        if named is None:
            return _without(facts, NAME_MISSING)
        if importlib.util.find_spec("tokenizers") is None:
            return _without(facts, _NOT_INSTALLED)
        try:
            folder, limit = await in_own_thread(lambda: self._fetch(*named, target.token), self._timeout)
        except TimeoutError:
            return _without(facts, f"The Hub did not respond within {self._timeout:g} seconds.")
        except RuntimeFailed as error:
            return _without(facts, error.message)
        except Exception:  # noqa: BLE001 - a registration must not fail because of the library
            _log.exception("the tokenizer of %s could not be fetched", named[0])
            return _without(facts, _SEE_LOG)
        former = self._counters.get(named)
        if former is not None and former.stale(folder):
            del self._counters[named]
        facts = replace(
            facts, token_counts=TokenCounts.TOKENIZER, max_input_tokens=facts.max_input_tokens or limit
        )
        try:
            await self.share([replace(endpoint, facts=facts)])
        except StoreFailed as error:
            _log.warning("other gateways estimate the tokens of %s until a restart: %s", named[0], error)
        return facts

    async def share(self, endpoints: Iterable[Endpoint]) -> None:
        """Bring the endpoints' tokenizers to this machine from the shared files, and the other way round.

        Raises:
            StoreFailed: the shared files cannot be used.
        """
        if self._shared is None:
            return
        counted = [one for one in endpoints if one.facts.token_counts is TokenCounts.TOKENIZER]
        if not counted:
            return
        stored = await self._shared.names()
        for endpoint in counted:
            named = repository_named(endpoint)
            if named is None:
                continue
            name = _shared_name(*named)
            try:
                folder = await asyncio.to_thread(self._kept, *named)
                if folder is None and (content := await self._shared.read(name)) is not None:
                    await asyncio.to_thread(_keep, self._shared_folder(*named), content)
                elif folder is not None and name not in stored:
                    await self._shared.add(name, await asyncio.to_thread((folder / TOKENIZER).read_bytes))
            except OSError as error:
                _log.warning("the tokenizer of %s could not be shared: %s", named[0], error)

    def open(self, endpoint: Endpoint) -> Counter | None:
        """The counter of an endpoint. Endpoints of the same model share it."""
        if endpoint.source is Source.LOCAL:
            model = endpoint.model or ""
            commit = endpoint.facts.revision
            find = partial(kept_model, model, revision=commit)
            return self._counters.setdefault((model, commit), TokenizerCounter(model, find))
        named = repository_named(endpoint)
        if named is None or endpoint.facts.token_counts is not TokenCounts.TOKENIZER:
            return None
        return self._counters.setdefault(named, TokenizerCounter(named[0], lambda: self._kept(*named)))

    def _fetch(self, model: str, commit: str | None, token: Secret | None) -> tuple[Path, int | None]:
        folder = self._cached(model, commit) or fetch_files(
            model,
            TOKENIZER,
            _LIMIT_FILES,
            commit=commit,
            hf_endpoint=self._hf_endpoint,
            token=hub_token(token),
            into=self._home,
            timeout=self._timeout,
        )
        if folder is None:
            raise RuntimeFailed(f"The repository {model} has no {TOKENIZER}.")
        return folder, read_max_tokens(folder)

    def _kept(self, model: str, commit: str | None) -> Path | None:
        """The folder with the tokenizer, if it is on this machine."""
        shared = self._shared_folder(model, commit)
        return self._cached(model, commit) or (shared if (shared / TOKENIZER).exists() else None)

    def _cached(self, model: str, commit: str | None) -> Path | None:
        """The folder with the tokenizer and the files that have the model's limit."""
        folder = packaged(model)
        if folder is not None:
            return folder
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - half a second

        path = try_to_load_from_cache(model, TOKENIZER, cache_dir=self._home, revision=commit)
        return Path(path).parent if isinstance(path, str) else None

    def _shared_folder(self, model: str, commit: str | None) -> Path:
        return self._home / "shared" / hashlib.sha256(_shared_name(model, commit).encode()).hexdigest()


class TokenizerCounter:
    """Implements `domain.ports.Counter`: loads the tokenizer at its first use, and counts off the event loop.

    Args:
        model: its name in the log.
        find: finds the folder with the tokenizer.
    """

    def __init__(self, model: str, find: Callable[[], Path | None]) -> None:
        self._model = model
        self._find = find
        self._lock = threading.Lock()
        self._loaded: tuple[Path, Tokenizer] | None = None
        self._broken = False

    async def __call__(self, texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
        return None if self._broken else await asyncio.to_thread(self._count, texts, limit)

    def stale(self, folder: Path) -> bool:
        """Whether it uses another tokenizer than the one in `folder`."""
        return self._broken or (self._loaded is not None and self._loaded[0] != folder)

    def _count(self, texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
        try:
            from hubgate.runtime.model.tokenizer import count_tokens  # noqa: PLC0415 - an optional dependency

            tokenizer = self._tokenizer()
            return [count_tokens(tokenizer, text, limit) for text in texts]
        except (TokenizerBroken, ImportError) as error:
            self._give_up(error)
            return None

    def _tokenizer(self) -> Tokenizer:
        from hubgate.runtime.model.tokenizer import open_tokenizer  # noqa: PLC0415

        with self._lock:
            if self._loaded is None:
                folder = self._find()
                if folder is None:
                    raise TokenizerBroken(f"its {TOKENIZER} is gone")
                self._loaded = folder, open_tokenizer(folder)
            return self._loaded[1]

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            was_broken, self._broken = self._broken, True
        if not was_broken:
            _log.warning("tokens of %s are estimated from now on: %s", self._model, error)


def repository_named(endpoint: Endpoint) -> tuple[str, str | None] | None:
    """The repository of an endpoint's model, and its commit if known."""
    facts = endpoint.facts
    model = endpoint.repository
    if model is None or not _REPOSITORY.fullmatch(model):
        return None
    commit = facts.revision if model == facts.model else None
    return model, commit if commit and COMMIT.fullmatch(commit) else None


def hub_token(token: Secret | None) -> Secret | None:
    """The token, if it is one of the Hub: a key for the operator's own server must not be sent there."""
    return token if token and token.reveal().startswith("hf_") else None


def _shared_name(model: str, commit: str | None) -> str:
    return f"{model}@{commit or 'main'}/{TOKENIZER}"


def _keep(folder: Path, content: bytes) -> None:
    create_private_folder(folder)
    write_private(folder / TOKENIZER, content)


def _without(facts: Facts, why: str) -> Facts:
    """The facts without a tokenizer, with a warning if the server does not count tokens either."""
    if facts.token_counts is not TokenCounts.ESTIMATED:
        return facts
    return replace(
        facts,
        warnings=(*facts.warnings, f"Tokens are estimated: the model's tokenizer is not available. {why}"),
    )
