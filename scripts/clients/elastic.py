"""elasticsearch-py: put, inference, get, delete, its errors, completions and ranks."""

from __future__ import annotations

from elasticsearch import Elasticsearch, NotFoundError
from expected import (
    ENDPOINTS,
    KEY,
    PROMPT,
    TEXTS,
    URL,
    check_refused,
    check_same,
    check_text,
    passed,
    version_of,
)

version_of("elasticsearch")

with Elasticsearch(URL, api_key=KEY) as client:
    assert client.ping()
    for name in ENDPOINTS:
        reply = client.inference.inference(inference_id=name, input=TEXTS)
        check_same(name, [entry["embedding"] for entry in reply["text_embedding"]], "inference")
        reply = client.inference.text_embedding(inference_id=name, input=TEXTS)
        check_same(name, [entry["embedding"] for entry in reply["text_embedding"]], "text_embedding")
    settings = {"url": f"{URL}/hf/fake", "api_key": KEY}
    client.inference.put(
        inference_id="put-by-client",
        task_type="text_embedding",
        inference_config={"service": "hugging_face", "service_settings": settings},
    )
    passed("put, of an endpoint that is hubgate's own TEI face")
    reply = client.inference.inference(inference_id="put-by-client", input=TEXTS)
    check_same("fake", [entry["embedding"] for entry in reply["text_embedding"]], "through it")
    listed = client.inference.get(inference_id="put-by-client")["endpoints"]
    assert [one["inference_id"] for one in listed] == ["put-by-client"]
    assert KEY not in str(listed)
    passed("get, which does not show the token")
    client.inference.delete(inference_id="put-by-client")
    passed("delete")
    check_refused(lambda: client.inference.get(inference_id="put-by-client"), NotFoundError, "put-by-client")
    client.inference.put(
        inference_id="llm-by-client",
        task_type="completion",
        inference_config={
            "service": "hugging_face",
            "service_settings": {"url": f"{URL}/hf/llm", "api_key": KEY},
        },
    )
    completed = client.inference.completion(inference_id="llm-by-client", input=PROMPT)
    check_text(completed["completion"][0]["result"], "completion, through hubgate's own TGI face")
    client.inference.delete(inference_id="llm-by-client")
    ranked = client.inference.rerank(inference_id="ranker", query="a gate", input=["a harbour", "a gate"])
    assert sorted(rank["index"] for rank in ranked["rerank"]) == [0, 1], ranked
    passed("rerank")
