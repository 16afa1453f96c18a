"""Inconsistent or corrupt model files are rejected with a one-sentence error, whatever the defect."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_model import write_tiny_model

from hubgate.domain.errors import Cause, RuntimeFailed
from hubgate.runtime.model.compiled import CompiledModel
from hubgate.runtime.model.spec import read_model_spec
from hubgate.runtime.model.weights import read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from running_gateway import RunningGateway

ONE = "encoder.layer.0.attention.self.query.bias"
"""A tensor of 32 numbers."""
WRONG: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**70,
    10**400,
    float("nan"),
    float("inf"),
    0.5,
    "x",
    "32",
    [],
    ["x"],
    {"x": 1},
)
"""What a number of a JSON file may be instead."""
ODD: tuple[object, ...] = (None, 1, "x", [], {})
BROKEN = (b"", b"{", b"[" * 200_000, b'{"\xff": 1}', b"null", b"[]", b"1", b'"x"')
"""No JSON object."""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder of a tiny model, to be tampered with."""
    write_tiny_model(tmp_path / "tiny")
    return tmp_path / "tiny"


def loaded(folder: Path) -> None:
    """Load a model, as its worker does."""
    CompiledModel(read_model_spec(folder))


def refusal(load: Callable[[Path], object], path: Path) -> str:
    """The sentence with which it is refused."""
    with pytest.raises(RuntimeFailed) as failed:
        load(path)
    error = failed.value
    assert (error.cause, error.retryable) == (Cause.MODEL_UNUSABLE, False)
    assert error.message.endswith(".")
    assert error.message.isprintable()
    assert len(error.message) < 1000
    assert error.remedy
    return error.message


def parts(file: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its numbers."""
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def joined(header: object, numbers: bytes, length: int | None = None) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(head) if length is None else length).to_bytes(8, "little") + head + numbers


def lies(header: dict[str, Any], numbers: bytes) -> Iterator[tuple[str, bytes]]:
    """Safetensors files that lie, by what they lie about."""
    whole = joined(header, numbers)
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        yield f"cut to {size} bytes", whole[:size]
    for length in (0, 1, len(whole), 100_000_001, 2**32, 2**63, 2**64 - 1):
        yield f"a header of {length} bytes", joined(header, numbers, length)
    for text in (*BROKEN, b'{"a":' * 100_000, b'{"a": null}', b'{"a": {}}'):
        yield f"the header {text[:12]!r}", joined(text, numbers)
    yield "more behind the numbers", whole + b"xx"
    start, stop = header[ONE]["data_offsets"]
    wrong: dict[str, tuple[Any, ...]] = {
        "data_offsets": (
            *(
                [start, stop + 4],
                [start + 4, stop + 4],
                [start - 4, stop - 4],
                [stop, start],
                [0, stop - start],
            ),
            *([-1, stop], [start, 10**18], [2**70, 2**70 + 128], [start], [start, stop, stop], ["0", "128"]),
            *([start + 0.0, stop + 0.0], [float("nan"), 1.0], [False, True], None, {}, "xx"),
        ),
        "shape": (
            *([], [0], [31], [33], [-32], [2**63, 2], [2**64], [2**62, 4, 2], [10**30, 0], [32.0], ["32"]),
            *(None, "x", [True] * 32, [1] * 40 + [32], [float("inf")]),
        ),
        "dtype": ("F16", "BF16", "I64", None, 1, [], {}),
    }
    for field, values in wrong.items():
        for value in values:
            yield f"{field} {str(value)[:40]}", joined(header | {ONE: header[ONE] | {field: value}}, numbers)
    for entry in ODD:
        yield f"the entry {entry!r}", joined(header | {ONE: entry}, numbers)


def test_weights_with_inconsistent_headers_are_rejected(tiny: Path) -> None:
    file = tiny / "model.safetensors"
    assert read_weights(file)
    for what, content in list(lies(*parts(file))):
        file.write_bytes(content)
        assert "The weights model.safetensors" in refusal(read_weights, file), what


def test_missing_weights_or_wrong_dtypes_are_rejected_by_name(tiny: Path) -> None:
    file = tiny / "model.safetensors"
    header, numbers = parts(file)
    for kind in ("F64", "I8", "F32x"):
        file.write_bytes(joined(header | {ONE: header[ONE] | {"dtype": kind}}, numbers))
        assert f"its weights have no {ONE} in F32, F16 or BF16" in refusal(loaded, tiny)
    renamed = {name.replace("query.bias", "question.bias"): entry for name, entry in header.items()}
    file.write_bytes(joined(renamed, numbers))
    assert f"its weights have no {ONE}" in refusal(loaded, tiny)


def test_weights_that_produce_non_finite_values_are_rejected(tiny: Path) -> None:
    file = tiny / "model.safetensors"
    header, numbers = parts(file)
    file.write_bytes(joined(header, b"\xff" * len(numbers)))
    assert "values that are not finite" in refusal(loaded, tiny)


POOLING, OWN = "1_Pooling/config.json", "sentence_bert_config.json"
FILES = (
    "config.json",
    "modules.json",
    POOLING,
    OWN,
    "config_sentence_transformers.json",
    "tokenizer_config.json",
)


@pytest.mark.parametrize("name", FILES)
def test_invalid_config_file_is_rejected_by_name(tiny: Path, name: str) -> None:
    file = tiny / name
    for content in BROKEN:
        file.write_bytes(content)
        assert name in refusal(read_model_spec, tiny), content[:20]
    file.unlink()
    file.mkdir()
    assert f"{name} is not a file" in refusal(read_model_spec, tiny)
    file.rmdir()
    os.mkfifo(file)
    assert f"{name} is not a file" in refusal(read_model_spec, tiny)
    file.unlink()
    with file.open("wb") as large:
        large.truncate(17 * 2**20)
    assert f"{name} is larger than 16 MB" in refusal(read_model_spec, tiny)


@pytest.mark.parametrize(
    "name",
    ["hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "layer_norm_eps"],
)
def test_invalid_sizes_in_config_are_rejected(tiny: Path, name: str) -> None:
    config = json.loads((tiny / "config.json").read_bytes())
    for value in WRONG:
        if name == "layer_norm_eps" and value == 0.5:
            continue
        (tiny / "config.json").write_text(json.dumps(config | {name: value}))
        refusal(loaded, tiny)


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("config.json", "vocab_size", (True, 0, -1, 3, 2**70, 0.5, "x", [], {"x": 1})),
        ("config.json", "pad_token_id", (True, -1, 100, 2**31, 2**70, 0.5, "x", ["x"])),
        (OWN, "max_seq_length", (True, 1, 2)),
        (POOLING, "word_embedding_dimension", WRONG),
        (POOLING, "pooling_mode", ("x", "\ud800", "\n", ["mean"], {"x": 1}, 10**400)),
        (POOLING, "include_prompt", (False, 0, "x", [])),
        ("config_sentence_transformers.json", "prompts", (["x"], "x", {"query": 1}, 7)),
        ("config_sentence_transformers.json", "default_prompt_name", (1, ["x"], {}, "x", "")),
        ("tokenizer_config.json", "truncation_side", ("x", 1, None, ["left"])),
    ],
)
def test_config_values_of_wrong_type_are_rejected(
    tiny: Path, name: str, key: str, values: tuple[object, ...]
) -> None:
    content = json.loads((tiny / name).read_bytes()) if (tiny / name).exists() else {}
    for value in values:
        (tiny / name).write_text(json.dumps(content | {key: value}))
        refusal(loaded, tiny)


@pytest.mark.parametrize("key", ["path", "type"])
def test_invalid_module_entries_are_rejected(tiny: Path, key: str) -> None:
    modules = json.loads((tiny / "modules.json").read_bytes())
    for value in (*ODD, "\ud800", "a\x00b", "x" * 5000):
        wrong = copy.deepcopy(modules)
        wrong[1][key] = value
        (tiny / "modules.json").write_text(json.dumps(wrong))
        refusal(read_model_spec, tiny)


@pytest.mark.parametrize(
    "change",
    [
        {"id2label": value} for value in (1, 0.5, "xx", ["a", "b"], True)
    ] + [{"sbert_ce_default_activation_function": value} for value in (1, ["x"], {"x": 1}, "x")],
    ids=str,
)  # fmt: skip
def test_cross_encoder_with_invalid_labels_or_activation_is_rejected(
    tiny: Path, change: dict[str, object]
) -> None:
    config = json.loads((tiny / "config.json").read_bytes())
    ranks = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "x"}}
    (tiny / "config.json").write_text(json.dumps(config | ranks | change))
    refusal(read_model_spec, tiny)


def test_unused_config_field_may_have_any_type(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_bytes())
    for architectures in (1, 0.5, "BertModel", None, {"x": 1}):
        (tiny / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
        assert read_model_spec(tiny).hidden == 32


def test_corrupt_tokenizer_is_rejected(tiny: Path) -> None:
    file = tiny / "tokenizer.json"
    whole = file.read_bytes()
    content = json.loads(whole)
    without_unknown = copy.deepcopy(content)
    del without_unknown["model"]["vocab"]["[UNK]"]
    broken = [json.dumps(without_unknown).encode(), whole[: len(whole) // 2], *BROKEN]
    broken += [json.dumps(content | {"model": wrong}).encode() for wrong in ODD]
    for data in broken:
        file.write_bytes(data)
        refusal(loaded, tiny)
    file.unlink()
    file.mkdir()
    refusal(loaded, tiny)


def test_corrupt_graph_is_rejected_or_runs(tiny_copy: Path) -> None:
    file = tiny_copy / "onnx" / "model.onnx"
    whole = file.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        refusal(loaded, tiny_copy)
    rng = random.Random(7)
    for _ in range(25):  # a byte in the names and sizes at its beginning
        data = bytearray(whole)
        data[rng.randrange(4000)] = rng.randrange(256)
        file.write_bytes(data)
        with contextlib.suppress(RuntimeFailed):
            loaded(tiny_copy)


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    """A recorded model that is run as a graph in ONNX, to be tampered with."""
    models = Path(__file__).parents[2] / "data" / "tiny_models"
    shutil.copytree(models / "distilbert", tmp_path / "distilbert")
    return tmp_path / "distilbert"


def test_registration_reports_corrupt_weights_and_stores_nothing(gateway: RunningGateway, tiny: Path) -> None:
    form = {"name": "tiny", "source": "local", "model": str(tiny)}
    file = tiny / "model.safetensors"
    header, numbers = parts(file)
    file.write_bytes(joined(header, numbers, 2**63))
    reply = gateway.request("POST", "/api/endpoints", form)
    assert (reply.status, reply.json()["error"]["cause"]) == (424, "model_unusable")
    assert (
        "The weights model.safetensors is not a complete safetensors file."
        in reply.json()["error"]["message"]
    )
    assert gateway.request("GET", "/api/endpoints").json() == {"endpoints": []}
    file.write_bytes(joined(header, numbers))
    assert gateway.request("POST", "/api/endpoints", form).status == 201
