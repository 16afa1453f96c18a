"""Text generated in a worker process by OpenVINO GenAI."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tiny_model import worker_process
from tiny_writer import ANSWERS, change, local_writer, pieces, unpack, written

from hubgate.domain.errors import Cause, InvalidRequest, RuntimeFailed
from hubgate.runtime.protocol import GenerateText
from hubgate.runtime.supervisor import LocalModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")
EXPECTED = ANSWERS["qwen2"]
ENDLESS = "12 + 30 ="
"""The model continues it for 170 tokens."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack("qwen2", tmp_path_factory.mktemp("writer") / "qwen2")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(folder: Path) -> AsyncIterator[LocalModel]:
    """One model for all: a test that ends its worker finds that the next call starts another."""
    model = local_writer(folder)
    yield model
    await model.close()


@pytest.mark.parametrize("expected", EXPECTED["complete"], ids=lambda one: one["prompt"])
async def test_greedy_text_is_that_of_transformers(model: LocalModel, expected: dict[str, object]) -> None:
    text, last = await written(model, str(expected["prompt"]), max_tokens=40)
    assert (text, last.prompt_tokens, last.tokens) == (
        expected["text"],
        expected["prompt_tokens"],
        expected["tokens"],
    )
    assert last.finish_reason == ("length" if last.tokens == 40 else "stop")


@pytest.mark.parametrize("expected", EXPECTED["chat"], ids=lambda one: one["prompt"])
async def test_chat_uses_the_template_of_the_model(model: LocalModel, expected: dict[str, object]) -> None:
    messages = [{"role": "user", "content": expected["prompt"]}]
    stream = model.stream(lambda call: GenerateText(call, "", messages))
    found = [piece async for piece in stream]
    assert "".join(piece.text for piece in found) == expected["text"]
    assert len(found) > 5
    assert (found[-1].prompt_tokens, found[-1].tokens) == (expected["prompt_tokens"], expected["tokens"])


async def test_minimum_length_and_stop_strings_of_the_file_apply(tmp_path: Path) -> None:
    folder = unpack("qwen2", tmp_path / "qwen2")
    change(folder, "generation_config.json", min_new_tokens=20, stop_strings="nine")
    model = local_writer(folder)
    prompts = [one["prompt"] for one in EXPECTED["complete"] if one["tokens"] < 20]
    try:
        texts = [await written(model, prompt, max_tokens=40) for prompt in prompts]
    finally:
        await model.close()
    assert len(texts) > 2
    assert texts[0].text == " leaves the harbour at "
    assert [text.last.tokens >= 20 or text.last.stop == "nine" for text in texts] == [True] * len(texts)


async def test_graph_that_does_not_load_is_refused_with_the_export_command(tmp_path: Path) -> None:
    folder = unpack("qwen2", tmp_path / "qwen2")
    (folder / "openvino_model.bin").write_bytes(b"")
    model = local_writer(folder)
    with pytest.raises(RuntimeFailed, match="OpenVINO cannot load it") as failed:
        await written(model, "The")
    await model.close()
    assert "optimum-cli export openvino --model NAME FOLDER" in failed.value.remedy


async def test_concurrent_texts_are_the_same_as_alone(model: LocalModel) -> None:
    """More of them than are generated at once."""
    wanted = [EXPECTED["complete"][n % 7] for n in range(30)]
    found = await asyncio.gather(
        *(written(model, one["prompt"], max_tokens=40, caller=f"{n % 3}") for n, one in enumerate(wanted))
    )
    assert [text for text, _ in found] == [one["text"] for one in wanted]


async def test_seed_repeats_a_sampled_text_also_beside_others(model: LocalModel) -> None:
    drawn = {"temperature": 3.0, "max_tokens": 12}
    alone = await written(model, "The", seed=7, **drawn)
    together = await asyncio.gather(*(written(model, "The", seed=seed, **drawn) for seed in (5, 6, 7, 8)))
    assert together[2].text == alone.text
    assert len({text for text, _ in together}) == 4
    unseeded = await asyncio.gather(*(written(model, "The", **drawn) for _ in range(4)))
    assert len({text for text, _ in unseeded}) > 1


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 5.0, "sample": False},
        {"temperature": 5.0, "top_k": 1},
        {"temperature": 5.0, "top_p": 1e-6},
        {"temperature": 5.0, "min_p": 0.999},
    ],
)
async def test_options_that_leave_one_token_give_the_greedy_text(
    model: LocalModel, options: dict[str, object]
) -> None:
    assert (await written(model, "Boats", **options)).text == EXPECTED["complete"][1]["text"]


async def test_value_that_openvino_refuses_fails_only_its_call(model: LocalModel) -> None:
    with pytest.raises(InvalidRequest, match="min_p must be in"):
        await written(model, "Boats", temperature=1.0, min_p=1.0)
    assert (await written(model, "Boats")).text == EXPECTED["complete"][1]["text"]


async def test_penalties_change_the_text(model: LocalModel) -> None:
    plain = (await written(model, ENDLESS, max_tokens=40)).text
    for penalty in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert (await written(model, ENDLESS, max_tokens=40, **{penalty: 2.0})).text != plain


async def test_stop_sequence_ends_the_text_and_no_part_of_it_is_streamed(model: LocalModel) -> None:
    found = [piece async for piece in pieces(model, "The ferry", stop=["ninety", "at nine in", "nothing"])]
    assert "".join(piece.text for piece in found) == " leaves the harbour "
    assert (found[-1].finish_reason, found[-1].stop) == ("stop", "at nine in")
    assert (await written(model, "The ferry", stop=["morning, or"])).text.endswith("in the morning.")


async def test_prompt_must_leave_room_for_the_text(model: LocalModel) -> None:
    for prompt in ("zq" * 130, "z" * 300_000):
        with pytest.raises(InvalidRequest, match="reads and writes at most 256") as failed:
            await written(model, prompt)
        assert failed.value.cause is Cause.INPUT_TOO_LONG
    with pytest.raises(InvalidRequest, match="prompt is empty"):
        await written(model, "")
    _, last = await written(model, f"{ENDLESS} " * 25)
    assert (last.finish_reason, last.prompt_tokens + last.tokens) == ("length", 256)


async def test_caller_that_leaves_makes_room_for_the_next(folder: Path) -> None:
    model = local_writer(folder, lanes=1)
    async with aclosing(pieces(model, ENDLESS, max_tokens=160)) as stream:
        await anext(stream)
    assert (await written(model, "The ferry")).text == EXPECTED["complete"][0]["text"]
    assert not worker_process(model)._streams
    await model.close()


async def test_model_whose_texts_do_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    folder = unpack("qwen2", tmp_path / "qwen2")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["num_hidden_layers"] = 2**31 - 1  # it decides how much memory each token takes
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    model = local_writer(folder)
    with pytest.raises(RuntimeFailed, match="too little free memory"):
        await model.ready()
    await model.close()


async def test_killed_worker_fails_its_texts_and_the_next_call_restarts_it(folder: Path) -> None:
    model = local_writer(folder)
    await model.ready()
    first = worker_process(model)
    os.kill(first.pid, signal.SIGSTOP)  # it could answer before it is killed
    text = asyncio.create_task(written(model, ENDLESS, max_tokens=160))
    await asyncio.sleep(0)
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(RuntimeFailed, match="ended by SIGKILL") as failed:
        await text
    assert failed.value.cause is Cause.RUNTIME_CRASHED
    assert failed.value.retryable
    assert (await written(model, "The ferry")).text == EXPECTED["complete"][0]["text"]
    assert worker_process(model).pid != first.pid
    await model.close()
