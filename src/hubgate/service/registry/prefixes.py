"""Finding the prefixes that a model's texts need, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hubgate.core.prompts import Prefixes, family_prefixes, find_prefixes, needs_instructions
from hubgate.domain.endpoint import Endpoint, Facts, InputType, PrefixSource, Source, Target, Task
from hubgate.domain.errors import HubgateError, InvalidEndpoint
from hubgate.domain.hub import ModelCard, ModelPrompts
from hubgate.domain.ports import Hub, Sources
from hubgate.domain.secret import Secret
from hubgate.upstreams.hub.prompts import prompts_of

_MAX_SHOWN = 12
"""Names of prompts in a message."""


async def learn_prefixes(sources: Sources, target: Target, former: Endpoint | None = None) -> Facts:
    """The facts with the prefixes of the model, and warnings if they may be wrong.

    Args:
        sources: reads the model's files.
        target: the endpoint with all other facts.
        former: the endpoint as it was registered before, if it was.

    Raises:
        InvalidEndpoint: the model has no prompt of a chosen name.
    """
    endpoint = target.endpoint
    model = endpoint.repository
    prompts, missing = await _published(sources, target, former)
    facts = endpoint.facts
    if prompts is not None:
        facts = replace(
            facts,
            prompts=prompts.texts,
            default_prompt=prompts.default,
            original=prompts.original,
            shorter_dimensions=prompts.shorter_dimensions or None,
        )
    known = find_prefixes(model, facts.prompts, facts.default_prompt, facts.original)
    texts, source = known.texts, known.source
    texts |= _chosen(endpoint.prompt_names or {}, facts.prompts, missing)
    added = await sources.added_prompt(replace(target, endpoint=replace(endpoint, facts=facts)))
    if added:
        texts, source = {}, PrefixSource.SERVER
    found = replace(endpoint, facts=replace(facts, prefixes=texts, prefix_source=source))
    warnings = _warnings(found, prompts, missing, added)
    is_chosen = endpoint.prefixes is not None or endpoint.prompt_names
    if not added and not is_chosen and (doubt := _family_warning(found, known, prompts)):
        warnings = (*warnings, doubt)
    if change := _change(former, found):
        warnings = (*warnings, change)
    return replace(found.facts, warnings=(*facts.warnings, *warnings))


async def prefixes_of_card(hub: Hub, card: ModelCard, token: Secret | None) -> Prefixes | None:
    """The prefixes that a registration of a model on the Hub would find; `None` if it makes no dense vectors."""
    if Task.TEXT_EMBEDDING not in card.tasks:
        return None
    try:
        prompts = await prompts_of(hub, card, token)
    except HubgateError:
        return find_prefixes(card.name, None, None, card.quantized_from)
    return find_prefixes(card.name, prompts.texts, prompts.default, prompts.original)


async def _published(
    sources: Sources, target: Target, former: Endpoint | None
) -> tuple[ModelPrompts | None, str]:
    """The prompts in the model's files, or why they are not known. Known ones are not forgotten while the Hub is down."""
    try:
        return await sources.read_prompts(target), ""
    except HubgateError as error:
        known = former.facts if former is not None and _same_model(former, target.endpoint) else Facts()
        if known.prompts is None:
            return None, error.message
        kept = ModelPrompts(
            texts=known.prompts,
            default=known.default_prompt,
            original=known.original,
            shorter_dimensions=known.shorter_dimensions or (),
        )
        return kept, ""


def _chosen(
    names: Mapping[InputType, str], prompts: Mapping[str, str] | None, missing: str
) -> dict[InputType, str]:
    for name in names.values():
        if prompts is None:
            raise InvalidEndpoint(
                f"The prompts of the model are not known, so [{name}] in [prompt_names] is not. {missing}".strip(),
                remedy="Set [prefixes] to the texts instead.",
            )
        if name not in prompts:
            raise InvalidEndpoint(
                f"The model has no prompt named [{name[:200]}].", remedy=f"Its prompts: {_listed(prompts)}."
            )
    return {kind: prompts[name] for kind, name in names.items()} if prompts else {}


def _warnings(endpoint: Endpoint, prompts: ModelPrompts | None, missing: str, added: str) -> tuple[str, ...]:
    facts, warnings = endpoint.facts, []
    if added:
        own = "before the endpoint's [prefixes]" if endpoint.prefixes else "so hubgate adds no prefix"
        warnings.append(
            f"The server adds a prompt [{added}] to every text itself, {own}: queries and documents get the same one. "
            "Start the server without a default prompt."
        )
    elif endpoint.prefixes is None and facts.prefix_source is PrefixSource.NONE and not endpoint.prompt_names:
        published = sorted(name for name, text in (facts.prompts or {}).items() if text)
        if published:
            warnings.append(
                f"The model publishes prompts, but none of them is used: {_listed(published)}. Choose one for each "
                "input type with [prompt_names], or set [prefixes] to {} if it needs none."
            )
        elif missing and endpoint.source is not Source.FAKE:
            warnings.append(
                f"No prefix is added: the model's prompts could not be read, and hubgate's table does not have it. {missing} "
                "If its card asks for a prefix, set [prefixes]."
            )
    if prompts is not None and not prompts.pools_prompt and endpoint.effective_prefixes:
        warnings.append(
            "The model excludes its prompt from pooling, which only sentence-transformers does: vectors of texts with a "
            "prefix differ from those of the original."
        )
    if prompts is not None and prompts.suffix:
        warnings.append(
            f"The model's files ask for a suffix [{prompts.suffix}] after each text, which hubgate does not add."
        )
    if warning := _pooling_warning(facts, prompts):
        warnings.append(warning)
    return tuple(warnings)


def _family_warning(endpoint: Endpoint, known: Prefixes, prompts: ModelPrompts | None) -> str:
    """What may be wrong if prefixes are known, or missing, only because of what the model is made from."""
    model, tuned_from = endpoint.repository or "the model", prompts.tuned_from if prompts else None
    of_original = family_prefixes(tuned_from)
    original = prompts.original if prompts else None
    if known.source is PrefixSource.TABLE and known.texts and (of_original or not known.is_certain):
        return (
            f"The prefixes are those of {known.family}, by the name of [{model}], which seems to be a fine-tune. If it "
            "was trained with others, or without any, set [prefixes]."
        )
    if known.source is not PrefixSource.NONE:
        return ""
    if needs_instructions(original or model):
        return (
            f"[{model}] expects an instruction before each text, such as [Represent the Science title: ], which hubgate "
            "does not know. Set [prefixes] to those of your texts."
        )
    if of_original:
        listed = ", ".join(f"{kind}: [{text}]" for kind, text in of_original.items())
        return (
            f"[{model}] is a fine-tune of {tuned_from}, which needs prefixes ({listed}), but its files have none, so "
            "hubgate adds none. If it was trained with prefixes, set [prefixes]."
        )
    return ""


def _pooling_warning(facts: Facts, prompts: ModelPrompts | None) -> str | None:
    served, published = (facts.pooling or "").replace("_", ""), prompts.pooling if prompts else None
    known = {"cls", "mean", "lasttoken"}
    if published is None or served == published or not {served, published} <= known:
        return None
    return (
        f"The server pools by {served}, but the model's files say {published}: its vectors are not those that the model "
        "was trained for. Start the server with the right pooling."
    )


def _change(former: Endpoint | None, now: Endpoint) -> str | None:
    """A warning if the same model gets other prefixes than before, although the operator changed none."""
    if former is None or former.facts.engine is None:
        return None
    chosen = (former.prefixes, former.prompt_names) != (now.prefixes, now.prompt_names)
    if chosen or not _same_model(former, now):
        return None
    before, after = former.effective_prefixes, now.effective_prefixes
    changes = [
        f"{kind} was [{before.get(kind, '')}] and is [{after.get(kind, '')}]"
        for kind in InputType
        if before.get(kind, "") != after.get(kind, "")
    ]
    if not changes:
        return None
    return (
        f"The prefixes of the model changed: {', '.join(changes)}. Embed the texts again that were embedded with the old "
        "ones, or set [prefixes] to the old ones."
    )


def _same_model(one: Endpoint, other: Endpoint) -> bool:
    return (one.repository, one.facts.model) == (other.repository, other.facts.model)


def _listed(names: Mapping[str, str] | list[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - _MAX_SHOWN} more" if len(shown) > _MAX_SHOWN else ""
    return (", ".join(shown[:_MAX_SHOWN]) or "none") + more
