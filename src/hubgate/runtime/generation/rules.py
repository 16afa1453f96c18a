"""Which settings of `generation_config.json` are applied. One that would change texts and is not applied is refused.

Source of the names and their meaning: `GenerationConfig` of transformers 5.24.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubgate.runtime.model.files import unusable

DEFAULTS = "generation_config.json"
_APPLIED = frozenset(
    {
        "do_sample",
        "eos_token_id",
        "max_length",
        "max_new_tokens",
        "min_length",
        "min_new_tokens",
        "min_p",
        "repetition_penalty",
        "stop_strings",
        "temperature",
        "top_k",
        "top_p",
    }
)
_APPLIED_WITH_ENCODER = frozenset(
    {
        "bad_words_ids",
        "begin_suppress_tokens",
        "decoder_start_token_id",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "no_repeat_ngram_size",
        "num_beams",
        "renormalize_logits",
        "suppress_tokens",
    }
)
_WITHOUT_BEAMS = frozenset(
    {"decoder_start_token_id", "early_stopping", "length_penalty", "renormalize_logits"}
)
"""Without effect on a decoder-only model, which runs without beam search here."""
_WITHOUT_EFFECT = frozenset(
    {
        # about the file and the special tokens
        *("_commit_hash", "_from_model_config", "_name_or_path", "transformers_version"),
        *("bos_token_id", "pad_token_id"),
        # memory and speed
        *("cache_config", "cache_implementation", "compile_config", "continuous_batching_config"),
        *("disable_compile", "low_memory", "max_cache_len", "prefill_chunk_size", "use_cache"),
        # a second model that proposes tokens: none is used
        *("assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight"),
        *("assistant_lookbehind", "max_matching_ngram_size", "num_assistant_tokens"),
        *("num_assistant_tokens_schedule", "prompt_lookup_num_tokens", "speculation_type"),
        *("target_lookbehind", "use_mtp"),
        # what else `generate` returns; a call gets one text
        *("num_return_sequences", "output_attentions", "output_hidden_states", "output_logits"),
        *("output_scores", "return_dict_in_generate"),
        # for values that are not finite: such a model is refused when it is loaded
        "remove_invalid_values",
    }
)
_OFF: Mapping[str, tuple[float, ...]] = {
    "diversity_penalty": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "guidance_scale": (1,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (0, 1),
    "num_beams": (1,),
    "penalty_alpha": (0,),
    "typical_p": (1,),
}
"""Values with which a setting has no effect. Null, false and an empty list are such values for every setting."""
_REMEDY = (
    f"Copy the model to a folder, delete the setting from its {DEFAULTS} if its texts may do without, "
    "and register that folder; or serve the model with another engine."
)


def check_rules(folder: Path, own: Mapping[str, Any], *, has_encoder: bool) -> None:
    """Refuse the settings that would change texts and are not applied to this kind of model.

    Raises:
        RuntimeFailed: there is one. The message names it.
    """
    known = _APPLIED | _WITHOUT_EFFECT | (_APPLIED_WITH_ENCODER if has_encoder else _WITHOUT_BEAMS)
    refused = sorted(name for name, value in own.items() if name not in known and not _is_off(name, value))
    if refused:
        kind = "an encoder-decoder" if has_encoder else "a decoder-only"
        raise unusable(
            folder,
            f"{DEFAULTS} sets {', '.join(refused)}, which is not supported for {kind} model",
            remedy=_REMEDY,
        )
    if has_encoder and own.get("do_sample") is True and own.get("num_beams") not in (None, 1):
        raise unusable(
            folder,
            f"{DEFAULTS} sets do_sample and num_beams, and beam search that samples is not supported",
            remedy=_REMEDY,
        )


def _is_off(name: str, value: object) -> bool:
    return value is None or value is False or value in ([], {}) or value in _OFF.get(name, ())
