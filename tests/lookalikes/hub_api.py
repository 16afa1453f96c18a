"""The Hub's API as `spec/huggingface.md` 1.4 has it: a few models, who serves them, whose a token is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lookalikes.model import Answer
from lookalikes.site import Seen, Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "hf_fineGrainedTokenMadeUp"
PROMPTS = "config_sentence_transformers.json"
READ_TOKEN = "hf_readTokenMadeUp"
MANAGER_TOKEN = "hf_mayManageEndpoints"
"""Of `acme`, whose Inference Endpoints it may manage."""
SHA = "c" * 40

_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_SERVED_BY_HF = {
    "provider": "hf-inference",
    "status": "live",
    "providerId": _MINILM,
    "task": "sentence-similarity",
    "isModelAuthor": False,
}


def _model(name: str, pipeline_tag: str | None, trending: float, **fields: Any) -> dict[str, Any]:
    return {
        "_id": "0",
        "id": name,
        "downloads": 1000,
        "gated": False,
        "lastModified": "2026-08-01T12:00:00.000Z",
        "library_name": "transformers",
        "likes": 7,
        "pipeline_tag": pipeline_tag,
        "private": False,
        "sha": SHA,
        "tags": ["transformers", "license:apache-2.0"],
        "trendingScore": trending,
    } | fields


MODELS: list[dict[str, Any]] = [
    _model("BAAI/bge-m3", "sentence-similarity", 90, inferenceProviderMapping=[]),
    _model(
        "intfloat/e5-small-v2",
        "feature-extraction",
        50,
        safetensors={"total": 33_360_000},
        inferenceProviderMapping=[
            {"provider": "together", "status": "error", "providerId": "e5", "task": "feature-extraction"}
        ],
    ),
    _model(_MINILM, "sentence-similarity", 70, inferenceProviderMapping=[_SERVED_BY_HF]),
    _model(
        "org/splade", "feature-extraction", 60, tags=["sentence-transformers", "sparse-encoder", "splade"]
    ),
    _model("org/reranker", "text-ranking", 40, tags=["license:cc-by-nc-4.0"]),
    _model("org/painter", "text-to-image", 999),
    _model("org/tagless", None, 998),
    _model(
        "meta/llama",
        "text-generation",
        80,
        gated="manual",
        tags=["conversational"],
        gguf={"total": 8_000_000_000, "context_length": 131_072},
        inferenceProviderMapping={
            "groq": {"status": "live", "providerId": "llama-8b", "task": "conversational"}
        },
    ),
    _model("google/flan-t5", "text-generation", 5),
    _model("org/seer", "image-text-to-text", 30, tags=["conversational"]),
    _model("org/secret", "feature-extraction", 1, private=True),
]
FILES: dict[str, dict[str, Any]] = {
    _MINILM: {
        "config.json": {"model_type": "bert", "hidden_size": 384, "max_position_embeddings": 512},
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
        "model.safetensors": {},
    },
    "BAAI/bge-m3": {
        "config.json": {"model_type": "xlm-roberta", "hidden_size": 1024, "max_position_embeddings": 514},
        "modules.json": [
            {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        ],
        "2_Dense/config.json": {"in_features": 1024, "out_features": 512},
    },
    "org/reranker": {"config.json": {"model_type": "bert", "max_position_embeddings": 512}},
    "org/secret": {"config.json": {"d_model": 64}, "modules.json": [{"type": "x.Dense", "path": "2_Dense"}]},
}
"""By model; others have none."""
WHOAMI: dict[str, dict[str, Any]] = {
    TOKEN: {
        "type": "user",
        "name": "ada",
        "orgs": [{"type": "org", "name": "acme"}, {"type": "org"}],
        "auth": {
            "type": "access_token",
            "accessToken": {
                "displayName": "gate",
                "role": "fineGrained",
                "fineGrained": {
                    "canReadGatedRepos": False,
                    "global": ["discussion.write"],
                    "scoped": [
                        {
                            "entity": {"_id": "1", "type": "user", "name": "ada"},
                            "permissions": ["inference.endpoints.infer.write", "repo.content.read"],
                        }
                    ],
                },
            },
        },
    },
    MANAGER_TOKEN: {
        "type": "user",
        "name": "acme",
        "auth": {
            "accessToken": {
                "displayName": "deployer",
                "role": "fineGrained",
                "fineGrained": {
                    "global": [],
                    "scoped": [
                        {"permissions": ["inference.endpoints.infer.write", "inference.endpoints.write"]}
                    ],
                },
            },
        },
    },
    READ_TOKEN: {"name": "bob", "auth": {"accessToken": {"displayName": "laptop", "role": "read"}}},
}


class HubApi(Site):
    """A small Hub; reading `org/secret` requires `TOKEN`."""

    def reply(self, seen: Seen) -> Answer:
        """The reply without a fault."""
        if seen.token not in {None, *WHOAMI}:
            return Answer(401, {"error": "Invalid credentials in Authorization header"})
        if seen.path == "/api/whoami-v2":
            return Answer(200, WHOAMI[seen.token]) if seen.token else Answer(401, {"error": "No token"})
        if seen.path == "/api/models":
            return Answer(200, _found(seen))
        name, _, file = seen.path.removeprefix("/api/models").strip("/").partition("/raw/")
        model = next((model for model in MODELS if model["id"] == name), None)
        if model is None or (model["private"] and seen.token != TOKEN):
            return Answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if not file:
            siblings = [{"rfilename": path} for path in FILES.get(name, {})]
            return Answer(200, model | {"siblings": siblings})
        path = file.partition("/")[2]
        return Answer(200, FILES[name][path]) if path in FILES[name] else Answer(404, "Entry not found")


def _found(seen: Seen) -> list[dict[str, Any]]:
    wanted = {name: values[0] for name, values in seen.query.items()}
    found = [
        model
        for model in MODELS
        if wanted.get("pipeline_tag") in (None, model["pipeline_tag"])
        and wanted.get("filter") in (None, *model["tags"])
        and wanted.get("search", "").lower() in model["id"].lower()
        and (not model["private"] or seen.token == TOKEN)
        and ("inference" not in wanted or "live" in str(model.get("inferenceProviderMapping")))
    ]
    found.sort(key=lambda model: -model[wanted["sort"]])
    return found[: int(wanted["limit"])]


@contextmanager
def running_hub_api() -> Iterator[HubApi]:
    """A running Hub."""
    site = HubApi()
    with site.running():
        yield site


class HubModels(Site):
    """A Hub whose models are public.

    Args:
        files: the JSON files of each model, by model and path.
        cards: further fields of a model's card, by model.
    """

    def __init__(
        self,
        files: Mapping[str, Mapping[str, Any]],
        cards: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.files = {model: dict(own) for model, own in files.items()}
        self.cards = cards or {}

    def reply(self, seen: Seen) -> Answer:
        """The reply without a fault."""
        model, _, file = seen.path.removeprefix("/api/models").strip("/").partition("/raw/")
        own = self.files.get(model)
        if own is None:
            return Answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if not file:
            siblings = [{"rfilename": path} for path in own]
            card = {"id": model, "sha": SHA, "pipeline_tag": "feature-extraction", "siblings": siblings}
            return Answer(200, {**card, **self.cards.get(model, {})})
        path = file.partition("/")[2]
        return Answer(200, own[path]) if own.get(path) is not None else Answer(500, {"error": "broken"})
