"""Counting the tokens of a model that runs elsewhere, with the tokenizer of its repository."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from hubgate.domain.endpoint import Endpoint, Facts, Source, Target, TokenCounts
from hubgate.domain.errors import RuntimeFailed
from hubgate.domain.ports import Counter
from hubgate.domain.secret import Secret
from hubgate.runtime.model.files import TOKENIZER, TokenizerBroken
from hubgate.runtime.model.spec import read_max_tokens
from hubgate.upstreams.local.files import COMMIT, fetch_files, kept_model, packaged
from hubgate.upstreams.named_files import in_own_thread

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PATIENCE = 5.0
"""Seconds that a registration waits for the Hub; a slow download goes on, and the next one finds it done."""
_FILES_OF_THE_LIMIT = ("config.json", "sentence_bert_config.json", "tokenizer_config.json")
_REPOSITORY = re.compile(r"(?!.*\.gguf$)[\w.-]+/[\w.-]+", re.ASCII)  # llama.cpp tells the path of its file
_NAME_IT = "The server names no model of the Hub: say in [model] which one it runs."
_INSTALL = 'Reading it needs tokenizers, which is not installed: pip install "hubgate[local]".'
_SEE_LOG = "Why it could not be fetched stands in the gate's log."

_log = logging.getLogger(__name__)


class TokenizerFiles:
    """Implements `domain.ports.Counters` for dedicated endpoints and local models.

    Args:
        home: the folder where tokenizers are kept.
        hf_endpoint: the Hub's address where it is another than the usual one.
        patience: seconds to wait for it.
    """

    def __init__(self, home: Path, *, hf_endpoint: str | None = None, patience: float = PATIENCE) -> None:
        self._home = home
        self._hf_endpoint = hf_endpoint
        self._patience = patience
        self._counters: WeakValueDictionary[tuple[str, str | None], TokenizerCounter] = WeakValueDictionary()

    async def learn(self, target: Target) -> Facts:
        """Fetch the tokenizer's file; the facts, with the limit of the model if its server does not tell."""
        endpoint, facts = target.endpoint, target.endpoint.facts
        if endpoint.source is not Source.DEDICATED:
            return facts
        named = _named(endpoint)
        if named is None:
            return _without(facts, _NAME_IT)
        if importlib.util.find_spec("tokenizers") is None:
            return _without(facts, _INSTALL)
        try:
            folder, limit = await in_own_thread(lambda: self._fetch(*named, target.token), self._patience)
        except TimeoutError:
            return _without(facts, f"The Hub takes more than {self._patience:g} seconds.")
        except RuntimeFailed as error:
            return _without(facts, error.message)
        except Exception:  # noqa: BLE001 - whatever the library does, a registration does not fail for it
            _log.exception("the tokenizer of %s could not be fetched", named[0])
            return _without(facts, _SEE_LOG)
        former = self._counters.get(named)
        if former is not None and former.stale(folder):
            del self._counters[named]
        return replace(
            facts, token_counts=TokenCounts.TOKENIZER, max_input_tokens=facts.max_input_tokens or limit
        )

    def open(self, endpoint: Endpoint) -> Counter | None:
        """The counter of an endpoint; endpoints of one model share one."""
        if endpoint.source is Source.LOCAL:
            model = endpoint.model or ""
            commit = endpoint.facts.revision
            find = partial(kept_model, model, revision=commit)
            return self._counters.setdefault((model, commit), TokenizerCounter(model, find))
        named = _named(endpoint)
        if named is None or endpoint.facts.token_counts is not TokenCounts.TOKENIZER:
            return None
        return self._counters.setdefault(named, TokenizerCounter(named[0], lambda: self._kept(*named)))

    def _fetch(self, model: str, commit: str | None, token: Secret | None) -> tuple[Path, int | None]:
        folder = self._kept(model, commit) or fetch_files(
            model,
            TOKENIZER,
            _FILES_OF_THE_LIMIT,
            commit=commit,
            hf_endpoint=self._hf_endpoint,
            # The key of a server that is nobody's but the operator's is no business of the Hub.
            token=token if token and token.reveal().startswith("hf_") else None,
            into=self._home,
            timeout=self._patience,
        )
        if folder is None:
            raise RuntimeFailed(f"The repository {model} has no {TOKENIZER}.")
        return folder, read_max_tokens(folder)

    def _kept(self, model: str, commit: str | None) -> Path | None:
        folder = packaged(model)
        if folder is not None:
            return folder
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - half a second

        path = try_to_load_from_cache(model, TOKENIZER, cache_dir=self._home, revision=commit)
        return Path(path).parent if isinstance(path, str) else None


class TokenizerCounter:
    """Implements `domain.ports.Counter`: loads a tokenizer when it is first used, and counts off the event loop.

    Args:
        model: what to call it in the log.
        find: the folder with its file, if it is there.
    """

    def __init__(self, model: str, find: Callable[[], Path | None]) -> None:
        self._model = model
        self._find = find
        self._lock = threading.Lock()
        self._loaded: tuple[Path, Tokenizer] | None = None
        self._broken = False

    async def __call__(self, texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
        """The tokens of each text: see `domain.ports.Counter`."""
        return None if self._broken else await asyncio.to_thread(self._count, texts, limit)

    def stale(self, folder: Path) -> bool:
        """Whether it counts otherwise than with the tokenizer in `folder`."""
        return self._broken or (self._loaded is not None and self._loaded[0] != folder)

    def _count(self, texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
        try:
            from hubgate.runtime.model.tokenizer import count_tokens  # noqa: PLC0415 - its library is for those who count

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
                    raise TokenizerBroken(f"its {TOKENIZER} is not there any more")
                self._loaded = folder, open_tokenizer(folder)
            return self._loaded[1]

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            told, self._broken = self._broken, True
        if not told:
            _log.warning("the tokens of %s are estimated from now on: %s", self._model, error)


def _named(endpoint: Endpoint) -> tuple[str, str | None] | None:
    """The repository of an endpoint's model and its commit, as far as they are known."""
    facts = endpoint.facts
    model = endpoint.model or facts.model
    if model is None or not _REPOSITORY.fullmatch(model):
        return None
    commit = facts.revision if model == facts.model else None
    return model, commit if commit and COMMIT.fullmatch(commit) else None


def _without(facts: Facts, why: str) -> Facts:
    """Facts of a model whose tokens nobody but its server counts; a warning if that does not do it either."""
    if facts.token_counts is not TokenCounts.ESTIMATED:
        return facts
    return replace(
        facts,
        warnings=(*facts.warnings, f"Tokens are estimated: the model's tokenizer is not at hand. {why}"),
    )
