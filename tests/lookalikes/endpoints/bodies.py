"""What the management API reads from the bodies of Inference Endpoints, and what it refuses.

From the payloads and comments of huggingface_hub 2.4.0: the fields, the union `image`, that unknown fields are ignored,
that `task` is not nullable, and that credentials are not returned in full. From huggingface_hub#2277: the words about
unknown hardware. Guesses: every other message and status, the rule for names, how secrets are returned, and which
task an endpoint has that was created without one (the client reads it from every reply).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_CONTAINER = frozenset({"url", "port", "healthRoute"})
IMAGES: dict[str, frozenset[str]] = {
    "huggingface": frozenset(),
    "huggingfaceNeuron": frozenset(),
    "tei": _CONTAINER | {"maxBatchTokens", "maxConcurrentRequests", "pooling"},
    "tgi": _CONTAINER
    | {
        "maxInputLength",
        "maxTotalTokens",
        "maxBatchPrefillTokens",
        "maxBatchTotalTokens",
        "quantize",
        "disableCustomKernels",
    },
    "tgiNeuron": _CONTAINER,
    "vLLM": _CONTAINER | {"tensorParallelSize", "dataParallelSize"},
    "vLLMNeuron": _CONTAINER,
    "sGLang": _CONTAINER | {"tensorParallelSize"},
    "llamacpp": _CONTAINER
    | {"ctxSize", "modelPath", "nGpuLayers", "nParallel", "pooling", "threadsHttp", "mode", "variant"},
    "hfServe": _CONTAINER,
    "custom": _CONTAINER | {"credentials"},
}
"""The fields of each image that the API knows."""
_MANAGED = frozenset({"huggingface", "huggingfaceNeuron"})
_FIELDS: dict[str, frozenset[str]] = {
    "compute": frozenset({"accelerator", "instanceType", "instanceSize", "scaling"}),
    "model": frozenset(
        {"repository", "framework", "revision", "task", "image", "command", "args", "env", "secrets"}
    ),
    "provider": frozenset({"vendor", "region"}),
    "privateService": frozenset({"accountId", "region"}),
    "route": frozenset({"domain", "path"}),
}
_TOP = frozenset({*_FIELDS, "name", "type", "tags", "cacheHttpResponses"})
_SCALING = frozenset({"minReplica", "maxReplica", "scaleToZeroTimeout", "measure"})
_TYPES = frozenset({"public", "authenticated", "private"})


def known_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without the fields that the API does not know: it ignores them."""
    kept = {name: value for name, value in body.items() if name in _TOP}
    for name, known in _FIELDS.items():
        if isinstance(kept.get(name), dict):
            kept[name] = {key: value for key, value in kept[name].items() if key in known}
    scaling = kept.get("compute", {}).get("scaling")
    if isinstance(scaling, dict):
        kept["compute"]["scaling"] = {key: value for key, value in scaling.items() if key in _SCALING}
    image = kept.get("model", {}).get("image")
    if isinstance(image, dict):
        kept["model"]["image"] = {
            variant: {key: value for key, value in own.items() if key in IMAGES.get(variant, ())}
            for variant, own in image.items()
        }
    return kept


def merged(body: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The body after a PUT: objects are merged, `image` and everything else is replaced."""
    result = dict(body)
    for name, value in change.items():
        if isinstance(value, dict) and isinstance(result.get(name), dict) and name != "image":
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


def redacted(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as it is returned: without the values of secrets and of the registry's password."""
    model = {"task": "custom", "revision": None, **body["model"]}
    if "secrets" in model:
        model["secrets"] = dict.fromkeys(model["secrets"], "")
    custom = model["image"].get("custom")
    if custom and "credentials" in custom:
        credentials = {"username": custom["credentials"]["username"], "password": ""}
        model["image"] = {"custom": {**custom, "credentials": credentials}}
    return {**body, "model": model}


def refusal_of(body: Mapping[str, Any]) -> Answer | None:
    """The reply to a body that is not valid, apart from the hardware that it names."""
    for path in ("name", "type", "provider.vendor", "provider.region", "compute.accelerator", "model.image"):
        value: Any = body
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            return _unprocessable(f"missing field `{path}`")
    if not _NAME.fullmatch(body["name"]):
        return _bad("Invalid endpoint name: at most 32 lower case letters, digits and hyphens")
    if body["type"] not in _TYPES:
        return _unprocessable(f"unknown variant `{body['type']}`")
    if "task" in body["model"] and body["model"]["task"] is None:
        return _unprocessable("model.task: invalid type: null, expected a string")
    return _refused_image(body["model"]["image"]) or _refused_scaling(body["compute"].get("scaling"))


def _refused_image(image: Any) -> Answer | None:
    if not isinstance(image, dict) or len(image) != 1 or (variant := next(iter(image))) not in IMAGES:
        return _unprocessable("model.image: expected one of " + ", ".join(sorted(IMAGES)))
    if variant not in _MANAGED and not image[variant].get("url"):
        return _unprocessable(f"model.image.{variant}: missing field `url`")
    return None


def _refused_scaling(scaling: Any) -> Answer | None:
    if not isinstance(scaling, dict):
        return _unprocessable("missing field `compute.scaling`")
    least, most = scaling.get("minReplica", 0), scaling.get("maxReplica", 1)
    if not 0 <= least <= most or most < 1:
        return _bad("Invalid scaling: minReplica must not exceed maxReplica")
    return None


def _unprocessable(reason: str) -> Answer:
    return Answer(422, {"error": f"Failed to deserialize the JSON body: {reason}"})


def _bad(reason: str) -> Answer:
    return Answer(400, {"error": reason})


def unknown_hardware(body: Mapping[str, Any]) -> Answer:
    """The reply to hardware that is not on the list."""
    compute, provider = body["compute"], body["provider"]
    accelerator = str(compute["accelerator"]).capitalize()
    named = f"'{accelerator}' - '{compute.get('instanceType')}' - '{compute.get('instanceSize')}'"
    place = f"'{provider['vendor']}' - '{provider['region']}'"
    return _bad(f"Instance compute {named} in {place} not found")
