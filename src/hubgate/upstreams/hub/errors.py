"""What error replies of Hugging Face's own APIs mean."""

from __future__ import annotations

from dataclasses import dataclass

from hubgate.domain.errors import Cause

TYPE_IT_INSTEAD = "hubgate works without it: type names, URLs and tasks yourself."


@dataclass(frozen=True, slots=True)
class HubErrorRule:
    """What an error reply means; the first rule that matches applies. `{about}` in its texts is what was requested."""

    statuses: range | frozenset[int]
    cause: Cause
    message: str
    remedy: str
    code: str | None = None
    """The Hub's `X-Error-Code`, which is more specific than the status."""
    retryable: bool = False


HUB_ERROR_RULES = (
    HubErrorRule(
        range(400, 500),
        Cause.GATED_MODEL,
        "{about} is gated: its owner has to grant access.",
        "Request access on its page on the Hub, then use a token of the account that was granted access.",
        code="GatedRepo",
    ),
    HubErrorRule(
        range(400, 500),
        Cause.MODEL_NOT_FOUND,
        "{site} has no {about}, or it is private and the token has no access.",
        "Check its name (org/name), or use a token of its owner.",
        code="RepoNotFound",
    ),
    HubErrorRule(
        frozenset({403}),
        Cause.TOKEN_LACKS_SCOPE,
        "The token has no permission to read {about}.",
        "Grant it read permission at https://huggingface.co/settings/tokens.",
    ),
    HubErrorRule(
        frozenset({404}),
        Cause.MODEL_NOT_FOUND,
        "{site} has no {about}.",
        "Check its name (org/name). If every name fails, check {setting}.",
    ),
)
DEPLOYMENT_ERROR_RULES = (
    HubErrorRule(
        frozenset({403}),
        Cause.TOKEN_LACKS_SCOPE,
        "The token has no permission to list {about}.",
        "Grant it the permission to manage Inference Endpoints of that namespace, or remove [namespace].",
    ),
    HubErrorRule(
        frozenset({404}),
        Cause.MODEL_NOT_FOUND,
        "{site} did not find {about}.",
        "Check the user's or organisation's name, or remove [namespace].",
    ),
)
MANAGING_ERROR_RULES = (
    HubErrorRule(
        frozenset({402}),
        Cause.OUT_OF_CREDIT,
        "The namespace cannot pay for {about}.",
        "Add a payment method at https://huggingface.co/settings/billing, or ask the organisation's owner.",
    ),
    HubErrorRule(
        frozenset({403}),
        Cause.TOKEN_LACKS_SCOPE,
        "The token has no permission to manage {about}.",
        "Grant it the permission inference.endpoints.write for that namespace at https://huggingface.co/settings/tokens.",
    ),
    HubErrorRule(
        frozenset({404}),
        Cause.MODEL_NOT_FOUND,
        "{site} has no {about}.",
        "Check its name and its namespace.",
    ),
    HubErrorRule(
        frozenset({409}),
        Cause.CONFLICT,
        "{site} rejected {about}: it conflicts with what is there.",
        "Choose another name, or wait until the last change is done.",
    ),
    HubErrorRule(
        frozenset({400, 405, 413, 415, 422}),
        Cause.INVALID_REQUEST,
        "{site} rejected {about}.",
        "Change what its message names.",
    ),
    HubErrorRule(
        range(500, 600),
        Cause.UPSTREAM_FAILED,
        "{site} failed for {about}.",
        "Try again later, or use https://endpoints.huggingface.co.",
        retryable=True,
    ),
)
"""For requests that manage an Inference Endpoint; 401, 410 and 429 mean what they mean elsewhere."""
COMMON_ERROR_RULES = (
    HubErrorRule(
        frozenset({401}),
        Cause.WRONG_TOKEN,
        "{site} rejected the token.",
        "Copy it again from https://huggingface.co/settings/tokens, or create a new one there.",
    ),
    HubErrorRule(
        frozenset({410}),
        Cause.OLD_ADDRESS,
        "{site} no longer exists at this address.",
        "Unset {setting}, or set it to the current address.",
    ),
    HubErrorRule(
        frozenset({429}),
        Cause.OVERLOADED,
        "{site} has rate limited the requests.",
        "Try again later. With a token, the limit is higher.",
        retryable=True,
    ),
    HubErrorRule(
        range(500, 600),
        Cause.UPSTREAM_FAILED,
        "{site} failed.",
        f"Try again later. {TYPE_IT_INSTEAD}",
        retryable=True,
    ),
    HubErrorRule(range(400, 500), Cause.UPSTREAM_FAILED, "{site} rejected the request.", TYPE_IT_INSTEAD),
)
"""For all of Hugging Face's APIs; an API's own rules come before these."""
NO_TOKEN = HubErrorRule(
    frozenset({401, 403}),
    Cause.TOKEN_MISSING,
    "{site} requires an access token.",
    "Use one.",
)
"""Instead of a rule about the token, if none was sent."""
