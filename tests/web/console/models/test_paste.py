"""How a pasted model name, link or URL is interpreted."""

from __future__ import annotations

import pytest

from hubgate.web.console.models.paste import name_of_server, parse_pasted, suggested_name

E5 = {"model": "intfloat/e5-small-v2", "kind": "embedding", "name": "e5-small-v2"}


@pytest.mark.parametrize(
    "pasted",
    [
        "intfloat/e5-small-v2",
        " 'intfloat/e5-small-v2' ",
        "https://huggingface.co/intfloat/e5-small-v2",
        "https://huggingface.co/intfloat/e5-small-v2/tree/main?x=1#usage",
        "huggingface.co/intfloat/e5-small-v2",
        "http://hf.co/intfloat/e5-small-v2",
    ],
)
def test_model_is_recognized_by_its_name_and_by_its_page(pasted: str) -> None:
    assert parse_pasted(pasted) == E5


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "embedding"),
        ("BAAI/bge-reranker-v2-m3", "rerank"),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", "rerank"),
        ("BAAI/bge-m3", "embedding"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llm"),
        ("google/flan-t5-base", "llm"),
    ],
)
def test_model_type_is_guessed_from_the_name(model: str, kind: str) -> None:
    assert parse_pasted(model)["kind"] == kind


@pytest.mark.parametrize(
    "pasted",
    [
        "https://api-inference.huggingface.co/models/intfloat/e5-small-v2",
        "https://api-inference.huggingface.co/pipeline/feature-extraction/models/intfloat/e5-small-v2",
        "https://router.huggingface.co/hf-inference/models/intfloat/e5-small-v2/pipeline/feature-extraction",
    ],
)
def test_old_and_new_hosted_api_urls_identify_the_model(pasted: str) -> None:
    assert parse_pasted(pasted) == {**E5, "where": "router"}


def test_router_url_sets_only_where_the_model_runs() -> None:
    assert parse_pasted("https://router.huggingface.co/v1") == {"where": "router"}


def test_inference_endpoint_is_recognized_by_its_url() -> None:
    url = "https://abc.us-east-1.aws.endpoints.huggingface.cloud"
    assert parse_pasted(url) == {"where": "dedicated", "url": url, "name": "abc"}


def test_self_hosted_server_gets_no_token() -> None:
    assert parse_pasted("http://10.0.0.5:8080/v1") == {
        "where": "dedicated",
        "url": "http://10.0.0.5:8080/v1",
        "name": "10.0.0.5-8080",
        "connection": "",
    }


def test_endpoints_page_sets_the_namespace() -> None:
    found = {"where": "dedicated", "namespace": "my-org"}
    assert parse_pasted("https://endpoints.huggingface.co/my-org/endpoints") == found
    assert parse_pasted("https://ui.endpoints.huggingface.co/my-org/endpoints/My-E5") == {
        **found,
        "name": "my-e5",
    }


def test_hub_search_url_sets_the_model_type() -> None:
    page = "https://huggingface.co/models?pipeline_tag=text-generation&sort=trending"
    assert parse_pasted(page) == {"kind": "llm"}
    page = "https://huggingface.co/models?pipeline_tag=text2text-generation"
    assert parse_pasted(page) == {"kind": "llm", "task_llm": "text2text-generation"}


@pytest.mark.parametrize(
    "pasted",
    [
        *("", "hello", "two words", "https://", "http://[", "https://huggingface.co/", "hf_aToken"),
        *(
            "https://huggingface.co/datasets/a/b",
            "https://huggingface.co/models",
            "https://endpoints.huggingface.co/",
        ),
        *("a/b/c", "../etc/passwd"),
    ],
)
def test_unrecognized_text_changes_nothing(pasted: str) -> None:
    assert parse_pasted(pasted) == {}


@pytest.mark.parametrize(
    ("model", "name"),
    [("org/Name", "name"), ("org/a b!c", "a-b-c"), ("org/_x_", "x"), ("", ""), ("org/模型", "")],
)
def test_suggested_name_is_valid_in_elasticsearch(model: str, name: str) -> None:
    assert suggested_name(model) == name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://K2h7x0q1.us-east-1.aws.endpoints.huggingface.cloud/v1", "k2h7x0q1"),
        ("http://gpu-box:8000", "gpu-box-8000"),
        ("models.example.com/e5", "models.example.com"),
        ("http://[::1]:8080", "1-8080"),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_default_name_is_derived_from_the_server_url(url: str, name: str) -> None:
    assert name_of_server(url) == name
