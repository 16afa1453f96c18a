"""Reading the folder of a model that generates text, as `optimum-cli export openvino` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubgate.domain.errors import RuntimeFailed
from hubgate.runtime.generation.rules import DEFAULTS, check_rules
from hubgate.runtime.model.files import REMEDY, TOKENIZER, json_of, read_json, unusable, whole

CONFIG = "config.json"
CAUSAL_GRAPH = "openvino_model.xml"
TEXT2TEXT_GRAPHS = ("openvino_encoder_model.xml", "openvino_decoder_model.xml")
_WITHOUT_POSITIONS = 2048
"""The tokens that a model with relative positions reads at most, if no file has a limit."""
_NO_LIMIT = 10**9
"""A tokenizer without a limit has 1e30."""
_TEMPLATE_FILE = "chat_template.jinja"
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MAX_TEMPLATE_BYTES = 1 << 20
_MAX_NEW_TOKENS = 1024
EXPORT_REMEDY = (
    "Export it with optimum-intel (optimum-cli export openvino --model NAME FOLDER) and use that folder, or use a "
    "repository that has the OpenVINO files, such as those of https://huggingface.co/OpenVINO."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """What `generation_config.json` sets for calls that do not set it."""

    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 for no limit."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = _MAX_NEW_TOKENS
    max_length: int | None = None
    """Of the prompt and the text of a decoder-only model together."""
    min_new_tokens: int | None = None
    min_length: int = 0
    """Of the prompt and the text of a decoder-only model together, unless `min_new_tokens` is set."""
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Text2TextSpec:
    """The graphs of an encoder-decoder model, and the rules of its texts in `generation_config.json`."""

    graphs: tuple[Path, Path]
    """The encoder and the decoder."""
    start: int
    """The token before the first one of the text."""
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    """Or `never`."""
    renormalize: bool = False
    """Whether beam search adds probabilities whose sum is 1 after the other rules, too."""
    no_repeat_ngram: int = 0
    encoder_no_repeat_ngram: int = 0
    """Tokens of a sequence of the prompt that may not be in the text."""
    min_length: int = 0
    """Tokens of the text, with the one before its first."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Sequences of tokens that may not be in the text."""
    suppressed: tuple[int, ...] = ()
    """Tokens that may not be in the text."""
    suppressed_first: tuple[int, ...] = ()
    """Tokens that may not be the first one, after the forced one."""
    forced_start: int | None = None
    """The first token of every text."""
    forced_end: int | None = None
    """The last token of a text of the maximum length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpec:
    """How to run the model of one folder."""

    folder: Path
    weights: Path
    max_tokens: int
    """Of the prompt and the generated text together; with an encoder, of each."""
    ends: frozenset[int]
    """The tokens that end a text."""
    vocabulary: int
    token_bytes: int | None
    """Memory that the model keeps for each token of a running text, in f32; `None` if no file says so."""
    template: str | None
    """The chat template."""
    special_tokens: Mapping[str, str]
    """By name, for the chat template."""
    defaults: SamplingDefaults
    text2text: Text2TextSpec | None = None
    """`None` for a decoder-only model."""


def read_generation_spec(folder: Path, *, downloaded: bool = True) -> GenerationSpec:
    """Read the specification of a folder's model. The weights are not opened.

    Args:
        folder: of the model.
        downloaded: whether its weights are there. Without them all other files are checked.

    Raises:
        RuntimeFailed: a file is missing, or has a setting that is not supported.
    """
    with export_remedy():
        graphs = _graphs(folder, downloaded=downloaded)
        config = _text_config(read_json(folder, CONFIG))
        own = read_json(folder, DEFAULTS, needed=False)
        check_rules(folder, own, has_encoder=len(graphs) > 1)
        tokenizer = read_json(folder, "tokenizer_config.json", needed=False)
        text2text = _text2text(folder, graphs, own, config)
        max_tokens = _max_tokens(folder, config, None if text2text is None else tokenizer)
        vocabulary = whole(folder, CONFIG, config, "vocab_size")
        if max_tokens is None or vocabulary is None:
            raise unusable(folder, "config.json does not give the sizes of the model")
        return GenerationSpec(
            folder=folder,
            weights=graphs[-1].with_suffix(".bin"),
            max_tokens=max_tokens,
            ends=_ends(folder, own, config),
            vocabulary=vocabulary,
            token_bytes=_token_bytes(folder, config),
            template=_template(folder, tokenizer),
            special_tokens=_special_tokens(tokenizer),
            defaults=_defaults(folder, own, has_encoder=text2text is not None),
            text2text=text2text,
        )


@contextmanager
def export_remedy() -> Iterator[None]:
    """Say how to export a model that generates text, in errors that would say which embedding models run."""
    try:
        yield
    except RuntimeFailed as error:
        if error.remedy != REMEDY:
            raise
        raise RuntimeFailed(error.message, remedy=EXPORT_REMEDY, cause=error.cause) from None


def _graphs(folder: Path, *, downloaded: bool) -> list[Path]:
    """The graphs of either kind of model. The files that every model needs must exist."""
    encoder, decoder = TEXT2TEXT_GRAPHS
    names = (encoder, decoder) if (folder / encoder).is_file() else (CAUSAL_GRAPH,)
    graphs = [folder / name for name in names]
    weights = [graph.with_suffix(".bin") for graph in graphs] if downloaded else []
    for needed in (*graphs, *weights, folder / TOKENIZER):
        if not needed.is_file():
            raise unusable(folder, f"{needed.name} is missing")
    return graphs


def _max_tokens(
    folder: Path, config: Mapping[str, Any], text2text_tokenizer: Mapping[str, Any] | None
) -> int | None:
    """The number of positions; an encoder-decoder model may have relative ones, and a limit of its tokenizer."""
    found = (whole(folder, CONFIG, config, name) for name in ("max_position_embeddings", "n_positions"))
    places = next(filter(None, found), None)
    if places is not None or text2text_tokenizer is None:
        return places
    limit = text2text_tokenizer.get("model_max_length")
    return limit if isinstance(limit, int) and 0 < limit < _NO_LIMIT else _WITHOUT_POSITIONS


def _text2text(
    folder: Path, graphs: list[Path], own: Mapping[str, Any], config: Mapping[str, Any]
) -> Text2TextSpec | None:
    if len(graphs) == 1:
        return None

    def count(name: str, default: int = 0) -> int:
        return whole(folder, DEFAULTS, own, name, least=0) or default

    def number(name: str) -> int | None:
        return whole(folder, DEFAULTS, own, name, least=0)

    def tokens(name: str) -> tuple[int, ...]:
        return _tokens(folder, name, own.get(name), config)

    start = number("decoder_start_token_id")
    if start is None:
        start = whole(folder, CONFIG, config, "decoder_start_token_id", least=0)
    if start is None:
        raise unusable(folder, f"{DEFAULTS} does not give decoder_start_token_id")
    minimum = number("min_new_tokens")
    return Text2TextSpec(
        graphs=(graphs[0], graphs[1]),
        start=start,
        beams=count("num_beams", 1),
        length_penalty=_number(folder, own, "length_penalty", 1.0, least=-10, most=10),
        early_stopping=_early_stopping(folder, own),
        renormalize=own.get("renormalize_logits") is True,
        no_repeat_ngram=count("no_repeat_ngram_size"),
        encoder_no_repeat_ngram=count("encoder_no_repeat_ngram_size"),
        min_length=count("min_length") if minimum is None else minimum + 1,
        bad_words=_bad_words(folder, own, config),
        suppressed=tokens("suppress_tokens"),
        suppressed_first=tokens("begin_suppress_tokens"),
        forced_start=number("forced_bos_token_id"),
        forced_end=number("forced_eos_token_id"),
    )


def _early_stopping(folder: Path, own: Mapping[str, Any]) -> bool | str:
    value = own.get("early_stopping")
    if value not in (None, True, False, "never"):
        raise unusable(folder, f"{DEFAULTS} does not give early_stopping as true, false or never")
    return value or False


def _bad_words(
    folder: Path, own: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[tuple[int, ...], ...]:
    """A single token that ends texts may end them, as in transformers."""
    name = "bad_words_ids"
    listed = own.get(name) or []
    if not isinstance(listed, list) or not all(listed):
        raise _no_tokens(folder, name)
    words = [_tokens(folder, name, word, config) for word in listed]
    ends = _ends(folder, own, config)
    return tuple(word for word in words if len(word) > 1 or word[0] not in ends)


def _tokens(folder: Path, name: str, listed: object, config: Mapping[str, Any]) -> tuple[int, ...]:
    size = whole(folder, CONFIG, config, "vocab_size") or 0
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(type(token) is int and 0 <= token < size for token in listed):
        raise _no_tokens(folder, name)
    return tuple(listed)


def _no_tokens(folder: Path, name: str) -> RuntimeFailed:
    return unusable(folder, f"{DEFAULTS} does not give {name} as tokens of the vocabulary")


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Models that also read images have a configuration for the part that writes."""
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, dict) else config


def _ends(folder: Path, own: Mapping[str, Any], config: Mapping[str, Any]) -> frozenset[int]:
    ends = own.get("eos_token_id", config.get("eos_token_id"))
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids):
        raise unusable(folder, f"{DEFAULTS} does not give eos_token_id as whole numbers")
    return frozenset(ids)


def _token_bytes(folder: Path, config: Mapping[str, Any]) -> int | None:
    """A key and a value of each layer and key head."""
    layers, hidden, heads, key_heads, size = (
        whole(folder, CONFIG, config, name)
        for name in (
            "num_hidden_layers",
            "hidden_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
        )
    )
    if layers is None or heads is None or (size is None and hidden is None):
        return None
    return 2 * layers * (key_heads or heads) * (size or (hidden or 0) // heads) * 4


def _template(folder: Path, tokenizer: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own since transformers 4.43, before that in the tokenizer's configuration."""
    file = folder / _TEMPLATE_FILE
    try:
        if file.is_file():
            if file.stat().st_size > _MAX_TEMPLATE_BYTES:
                raise unusable(folder, f"{_TEMPLATE_FILE} is larger than {_MAX_TEMPLATE_BYTES // 2**20} MB")
            return file.read_text("utf-8")
        template = json_of(folder, "chat_template.json").get("chat_template")
    except FileNotFoundError:
        template = tokenizer.get("chat_template")
    except (OSError, ValueError, AttributeError) as error:
        raise unusable(folder, "its chat template cannot be read") from error
    if isinstance(template, list):  # several by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise unusable(folder, "its chat template is not text")
    return template


def _special_tokens(tokenizer: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _SPECIAL_TOKENS:
        token = tokenizer.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found[name] = token
    return found


def _defaults(folder: Path, own: Mapping[str, Any], *, has_encoder: bool) -> SamplingDefaults:
    """`max_length` of an encoder-decoder model counts the token before the first; of others also the prompt."""
    limit = whole(folder, DEFAULTS, own, "max_new_tokens")
    length = whole(folder, DEFAULTS, own, "max_length", least=2) if limit is None else None
    temperature = _number(folder, own, "temperature", 1.0, least=0)
    return SamplingDefaults(
        sample=own.get("do_sample") is True and temperature > 0,
        temperature=temperature or 1.0,
        top_p=_number(folder, own, "top_p", 1.0, least=0, most=1) or 1.0,
        top_k=int(_number(folder, own, "top_k", 0, least=0)),
        min_p=_number(folder, own, "min_p", 0.0, least=0, most=1),
        repetition_penalty=_number(folder, own, "repetition_penalty", 1.0, least=1e-6),
        max_new_tokens=limit or (length - 1 if length and has_encoder else _MAX_NEW_TOKENS),
        max_length=None if has_encoder else length,
        min_new_tokens=whole(folder, DEFAULTS, own, "min_new_tokens", least=0),
        min_length=whole(folder, DEFAULTS, own, "min_length", least=0) or 0,
        stop=_stop(folder, own),
    )


def _stop(folder: Path, own: Mapping[str, Any]) -> tuple[str, ...]:
    stop = own.get("stop_strings") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise unusable(folder, f"{DEFAULTS} does not give stop_strings as a list of texts")
    return tuple(stops)


def _number(
    folder: Path, own: Mapping[str, Any], name: str, default: float, *, least: float, most: float = 1e9
) -> float:
    value = own.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise unusable(folder, f"{DEFAULTS} does not give {name} as a number from {least:g} to {most:g}")
    return float(value)
