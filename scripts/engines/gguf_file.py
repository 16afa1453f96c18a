"""Writes a llama or a BERT as a GGUF.

llama.cpp's own converter does not know the tiny tokenizers, and leaves out the pooling layer of a BERT that ranks.
Run in the environment of llama.cpp: `python gguf_file.py FOLDER FILE`, where FOLDER has the model of Hugging Face.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

gguf: Any = importlib.import_module("gguf")
safetensors: Any = importlib.import_module("safetensors.numpy")

HEAD = {"pooler.dense": "classifier.dense", "classifier": "classifier.out_proj"}
"""The layers of a BERT that ranks, and their names in RoBERTa, which `gguf` knows."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def main(folder: Path, file: Path) -> None:
    """Write one model."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tensors = safetensors.load_file(folder / "model.safetensors")
    kind = config["model_type"]
    writer = gguf.GGUFWriter(file, kind)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    if kind == "bert":
        tensors = bert(writer, config, tokenizer, tensors)
    else:
        llama(
            writer, config, tokenizer["model"]["vocab"], (folder / "chat_template.jinja").read_text("utf-8")
        )
        tensors = {name: rotated(name, tensor, config) for name, tensor in tensors.items()}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], config["num_hidden_layers"])
    for name, tensor in tensors.items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def bert(writer: Any, config: Any, tokenizer: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """Add the facts of a BERT; returns the tensors that llama.cpp loads, by names that `gguf` knows."""
    tensors = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    ranks = "classifier.weight" in tensors
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if ranks else gguf.PoolingType.MEAN)
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_tokenizer_model("bert")
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_token_list([_wordpiece(token) for token in tokens])
    kinds = (gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens)
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", True)
    strips_accents = tokenizer["normalizer"]["strip_accents"]
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", strips_accents is not False)
    writer.add_bos_token_id(vocabulary["[CLS]"])
    writer.add_sep_token_id(vocabulary["[SEP]"])
    writer.add_unk_token_id(vocabulary["[UNK]"])
    writer.add_pad_token_id(vocabulary["[PAD]"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)  # after a query and a document; it has no token of its own but [SEP]
    writer.add_add_sep_token(False)
    kept: dict[str, Any] = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        if layer in HEAD and ranks:
            kept[f"{HEAD[layer]}.{part}"] = tensor
        elif layer not in HEAD and part != "position_ids":
            kept[name] = tensor
    return kept


def _wordpiece(token: str) -> str:
    if token in SPECIAL:
        return token
    return token[2:] if token.startswith("##") else f"▁{token}"


def llama(writer: Any, config: Any, vocabulary: list[tuple[str, float]], template: str) -> None:
    """Add the facts of a llama with a Unigram tokenizer."""
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("t5")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_scores([score for _, score in vocabulary])
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2]
    kinds += [gguf.TokenType.NORMAL] * (len(vocabulary) - len(kinds))
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(template)


def rotated(name: str, tensor: Any, config: Any) -> Any:
    """The rows in llama.cpp's order of a layer to which the positions are applied; other tensors as they are."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return tensor
    heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
    halves = tensor.reshape(heads, 2, -1, tensor.shape[1])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
