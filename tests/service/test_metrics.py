"""The content of /metrics."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from hubgate.service.metrics import Meter

LIVE: dict[str, Any] = {}
LOCAL: Any = SimpleNamespace(queue=None, cached=None, health=None)


def lines(meter: Meter, name: str) -> list[str]:
    """The samples of one metric."""
    exposed = "".join(meter.lines())
    return [line for line in exposed.splitlines() if re.match(rf"{name}(?:\{{|\s)", line)]


def test_requests_are_counted_by_api_endpoint_and_cause() -> None:
    meter = Meter(lambda: LIVE)
    meter.observe("openai", "e5", "ok", seconds=0.2, texts=3, tokens=12)
    meter.observe("openai", "e5", "ok", seconds=0.3, texts=1, tokens=4)
    meter.observe("openai", "e5", "queue_full", seconds=0.001)
    meter.observe("own", "", "not_found", seconds=0.001)
    assert lines(meter, "hubgate_requests_total") == [
        'hubgate_requests_total{cause="ok",endpoint="e5",face="openai"} 2.0',
        'hubgate_requests_total{cause="queue_full",endpoint="e5",face="openai"} 1.0',
        'hubgate_requests_total{cause="not_found",endpoint="",face="own"} 1.0',
    ]
    assert 'hubgate_texts_total{endpoint="e5"} 4.0' in lines(meter, "hubgate_texts_total")
    assert 'hubgate_tokens_total{endpoint="e5"} 16.0' in lines(meter, "hubgate_tokens_total")


def test_durations_are_histograms_in_seconds() -> None:
    meter = Meter(lambda: LIVE)
    meter.observe("openai", "e5", "ok", seconds=0.2, waited=0.04)
    meter.observe("openai", "e5", "ok", seconds=0.3)
    assert lines(meter, "hubgate_request_seconds_sum") == [
        'hubgate_request_seconds_sum{endpoint="e5",face="openai"} 0.5'
    ]
    assert 'hubgate_request_seconds_bucket{endpoint="e5",face="openai",le="0.25"} 1.0' in lines(
        meter, "hubgate_request_seconds_bucket"
    )
    # Who did not wait is not counted.
    assert lines(meter, "hubgate_queue_seconds_count") == ['hubgate_queue_seconds_count{endpoint="e5"} 1.0']


def test_requests_in_flight_go_up_and_down() -> None:
    meter = Meter(lambda: LIVE)
    meter.in_flight += 1
    assert lines(meter, "hubgate_requests_in_flight") == ["hubgate_requests_in_flight 1.0"]


def test_queues_and_caches_are_read_at_scrape_time() -> None:
    queue = SimpleNamespace(queued_texts=7, queued_calls=5, in_flight=2, limit=8, requests=11, shared=3)
    live: dict[str, Any] = {
        "e5": SimpleNamespace(queue=queue, cached=SimpleNamespace(hits=13, misses=17), health=None),
        "local": LOCAL,
    }
    meter = Meter(lambda: live)
    for name, value in {
        "hubgate_queue_texts": 7.0,
        "hubgate_queue_calls": 5.0,
        "hubgate_upstream_in_flight": 2.0,
        "hubgate_upstream_concurrency_limit": 8.0,
        "hubgate_upstream_requests_total": 11.0,
        "hubgate_upstream_requests_saved_total": 3.0,
        "hubgate_cache_hits_total": 13.0,
        "hubgate_cache_misses_total": 17.0,
    }.items():
        assert lines(meter, name) == [f'{name}{{endpoint="e5"}} {value}']
    live.clear()
    assert lines(meter, "hubgate_queue_texts") == []


def test_requests_beyond_the_limit_of_series_are_counted_under_other() -> None:
    meter = Meter(lambda: dict.fromkeys((f"e{number}" for number in range(25)), LOCAL), max_series=10)
    for number in range(25):
        for _ in range(2):
            meter.observe("openai", f"e{number}", "ok", seconds=0.1, texts=3, waited=0.5)
    counted = lines(meter, "hubgate_requests_total")
    assert len(counted) == 11
    assert counted[0] == 'hubgate_requests_total{cause="ok",endpoint="e0",face="openai"} 2.0'
    assert counted[-1] == 'hubgate_requests_total{cause="ok",endpoint="(other)",face="openai"} 30.0'
    assert lines(meter, "hubgate_texts_total")[-1] == 'hubgate_texts_total{endpoint="(other)"} 90.0'
    assert lines(meter, "hubgate_request_seconds_count")[-1].endswith(" 30.0")
    assert lines(meter, "hubgate_queue_seconds_count")[-1].endswith(" 30.0")
    meter.observe("openai", "e3", "ok", seconds=0.1)
    assert lines(meter, "hubgate_requests_total")[3].endswith(" 3.0")


def test_removed_endpoints_make_room_for_new_series_and_no_count_is_lost() -> None:
    live: dict[str, Any] = {f"e{number}": LOCAL for number in range(5)}
    meter = Meter(lambda: live, max_series=5)
    for name in live:
        meter.observe("openai", name, "ok", seconds=0.1, texts=2, waited=0.5)
    live.clear()
    live["new"] = LOCAL
    assert lines(meter, "hubgate_requests_total") == [
        'hubgate_requests_total{cause="ok",endpoint="(other)",face="openai"} 5.0'
    ]
    meter.observe("openai", "new", "ok", seconds=0.1)
    assert lines(meter, "hubgate_requests_total") == [
        'hubgate_requests_total{cause="ok",endpoint="(other)",face="openai"} 5.0',
        'hubgate_requests_total{cause="ok",endpoint="new",face="openai"} 1.0',
    ]
    assert lines(meter, "hubgate_texts_total")[0] == 'hubgate_texts_total{endpoint="(other)"} 10.0'
    assert lines(meter, "hubgate_queue_seconds_count") == [
        'hubgate_queue_seconds_count{endpoint="(other)"} 5.0'
    ]


def test_exposes_the_memory_of_each_loaded_local_model() -> None:
    memory = {("org/model", "f32"): 93_000_000}
    meter = Meter(lambda: LIVE, lambda: memory)
    assert lines(meter, "hubgate_local_model_bytes") == [
        'hubgate_local_model_bytes{model="org/model",precision="f32"} 93000000.0'
    ]
    memory.clear()
    assert lines(meter, "hubgate_local_model_bytes") == []


def test_prometheus_own_parser_reads_every_family() -> None:
    odd = 'a "quoted" \\ name\nof two lines'
    meter = Meter(lambda: {"e5": LOCAL}, lambda: {(odd, "f32"): 7}, gateway_name="g")
    for seconds in (0.0001, 0.2, 0.25, 1000.0):
        meter.observe("openai", "e5", "ok", seconds=seconds, waited=seconds)
    families = {one.name: one for one in text_string_to_metric_families("".join(meter.lines()))}
    assert families["hubgate_local_model_bytes"].samples[0].labels == {"model": odd, "precision": "f32"}
    assert families["hubgate_requests"].type == "counter"
    assert families["hubgate_requests_in_flight"].type == "gauge"
    for name in ("hubgate_request_seconds", "hubgate_queue_seconds"):
        assert families[name].type == "histogram"
        assert families[name].documentation
        samples = {(one.name, one.labels.get("le")): one.value for one in families[name].samples}
        assert samples[f"{name}_bucket", "0.001"] == 1
        assert samples[f"{name}_bucket", "0.1"] == 1
        assert samples[f"{name}_bucket", "0.25"] == 3
        assert samples[f"{name}_bucket", "60.0"] == 3
        assert samples[f"{name}_bucket", "+Inf"] == samples[f"{name}_count", None] == 4
        assert samples[f"{name}_sum", None] == 1000.4501
