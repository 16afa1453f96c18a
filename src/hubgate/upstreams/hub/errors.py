"""The table of what Hugging Face's own interfaces mean by an error reply."""

from __future__ import annotations

from dataclasses import dataclass

from hubgate.domain.errors import Cause

TYPE_IT = "The gate works without it: names, URLs and tasks can be typed."


@dataclass(frozen=True, slots=True)
class Trouble:
    """One row of what an error reply means: the first that fits tells. `{about}` is what was asked for."""

    statuses: range | frozenset[int]
    cause: Cause
    message: str
    remedy: str
    code: str | None = None
    """The Hub's `X-Error-Code`, which tells more than the status."""
    retryable: bool = False


HUB_TROUBLES = (
    Trouble(
        range(400, 500),
        Cause.GATED_MODEL,
        "{about} is gated: its owner lets readers in one by one.",
        "Ask for access on its page at the Hub, then give a token of the account that was let in.",
        code="GatedRepo",
    ),
    Trouble(
        range(400, 500),
        Cause.MODEL_NOT_FOUND,
        "{site} has no {about}, or it is private and the token may not see it.",
        "Check its name (org/name), or give a token of its owner.",
        code="RepoNotFound",
    ),
    Trouble(
        frozenset({403}),
        Cause.TOKEN_LACKS_SCOPE,
        "The token may not read {about}.",
        "Give it the permission to read, at https://huggingface.co/settings/tokens.",
    ),
    Trouble(
        frozenset({404}),
        Cause.MODEL_NOT_FOUND,
        "{site} has no {about}.",
        "Check its name (org/name); if every name fails, check {setting}.",
    ),
)
DEPLOYMENT_TROUBLES = (
    Trouble(
        frozenset({403}),
        Cause.TOKEN_LACKS_SCOPE,
        "The token may not see {about}.",
        "Give it the permission to manage Inference Endpoints of that namespace, or leave [namespace] out.",
    ),
    Trouble(
        frozenset({404}),
        Cause.MODEL_NOT_FOUND,
        "{site} knows no {about}.",
        "Check the user's or organisation's name, or leave [namespace] out.",
    ),
)
LAST_TROUBLES = (
    Trouble(
        frozenset({401}),
        Cause.WRONG_TOKEN,
        "{site} does not accept the token.",
        "Copy it again from https://huggingface.co/settings/tokens, or make a new one there.",
    ),
    Trouble(
        frozenset({410}),
        Cause.OLD_ADDRESS,
        "{site} serves nothing at this address any more.",
        "Take {setting} out of the environment, or set it to the present address.",
    ),
    Trouble(
        frozenset({429}),
        Cause.OVERLOADED,
        "{site} takes no more requests for the moment.",
        "Ask again later; with a token, it takes more of them.",
        retryable=True,
    ),
    Trouble(
        range(500, 600),
        Cause.UPSTREAM_FAILED,
        "{site} fails at the moment.",
        f"Ask again later. {TYPE_IT}",
        retryable=True,
    ),
    Trouble(range(400, 500), Cause.UPSTREAM_FAILED, "{site} refuses the question.", TYPE_IT),
)
"""What is the same for all of Hugging Face's interfaces; a site's own rows come before these."""
NO_TOKEN = Trouble(
    frozenset({401, 403}),
    Cause.TOKEN_MISSING,
    "{site} wants an access token, and none was given.",
    "Give one.",
)
"""In place of what is about the token, where none was sent."""
