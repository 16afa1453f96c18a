"""elasticsearch-py: put, inference, get, delete, and its errors."""

from __future__ import annotations

from elasticsearch import Elasticsearch, NotFoundError
from expected import ENDPOINTS, KEY, TEXTS, URL, check_refused, check_same, passed, version_of

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
    passed("put, of an endpoint that is this gate's own TEI face")
    reply = client.inference.inference(inference_id="put-by-client", input=TEXTS)
    check_same("fake", [entry["embedding"] for entry in reply["text_embedding"]], "through it")
    listed = client.inference.get(inference_id="put-by-client")["endpoints"]
    assert [one["inference_id"] for one in listed] == ["put-by-client"]
    assert KEY not in str(listed)
    passed("get, which does not show the token")
    client.inference.delete(inference_id="put-by-client")
    passed("delete")
    check_refused(lambda: client.inference.get(inference_id="put-by-client"), NotFoundError, "put-by-client")
