"""The prompts of rerankers that are language models, which rank at random without them.

Each row of the table is a family of models, with the source of its template. Cross-encoders have no row: they read the
query and the document as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from hubgate.domain.calls import Call, Rerank, Result
from hubgate.domain.errors import InvalidRequest
from hubgate.domain.ports import Handler


class RerankTemplate(NamedTuple):
    """How one family reads a query and a document, and which tokens its score comes from.

    The prompt is `opening` and `closing`, one after the other; with an instruction, `instructed` replaces the one of
    the two that has the query. Engines without a template of their own get `opening` as the query and `closing` as the
    document. They contain `{query}`, `{document}` and `{instruction}`.
    """

    name: str
    pattern: str
    """Matches a part of the lower-case name, without the owner."""
    opening: str
    closing: str
    instructed: str | None
    """`None` if the family does not follow instructions."""
    yes: str | int
    """The token, or its id, whose logit at the end of the prompt is the score."""
    no: str | None
    """The token whose logit is subtracted from it."""
    scale: float
    """Of the raw score."""
    begin: str
    """A token before the prompt, if the model's tokenizer adds one."""
    max_tokens: int
    """Of a prompt, for local models: by the model's card, or 8192 where the card names only the length of its context."""
    source: str
    """Where the template is published."""

    def render(self, query: str, document: str, instruction: str | None) -> tuple[str, str]:
        """The two parts of the prompt."""
        opening, closing = self.opening, self.closing
        if instruction and self.instructed:
            in_opening = "{query}" in opening
            opening, closing = (self.instructed, closing) if in_opening else (opening, self.instructed)
        values = {"query": query, "document": document, "instruction": instruction}
        return opening.format(**values), closing.format(**values)

    def around(self, query: str, instruction: str | None) -> tuple[str, str]:
        """The prompt before and after the document."""
        mark = "\0"
        instruction = instruction and instruction.replace(mark, " ")
        before, _, after = "".join(self.render(query.replace(mark, " "), mark, instruction)).partition(mark)
        return before, after


_QWEN3 = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_MXBAI = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
_MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
    "(0 for not relevant, 1 for relevant).\nRelevance:"
)
_ANSWER = "<|im_end|>\n<|im_start|>assistant\n"

TEMPLATES = (
    RerankTemplate(
        name="qwen3-reranker",
        pattern=r"qwen3-reranker",
        opening=f"{_QWEN3}<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        "<Query>: {query}\n",
        closing=f"<Document>: {{document}}{_ANSWER}<think>\n\n</think>\n\n",
        instructed=f"{_QWEN3}<Instruct>: {{instruction}}\n<Query>: {{query}}\n",
        yes="yes",
        no="no",
        scale=1.0,
        begin="",
        max_tokens=8192,
        source="model card of Qwen/Qwen3-Reranker-0.6B; vLLM examples/pooling/score/template/qwen3_reranker.jinja",
    ),
    RerankTemplate(
        name="mxbai-rerank-v2",
        pattern=r"mxbai-rerank-(base|large)-v2",
        opening=f"{_MXBAI}query: {{query}}\n",
        closing=f"document: {{document}}\n{_MXBAI_TASK}{_ANSWER}",
        instructed=f"{_MXBAI}instruction: {{instruction}}\nquery: {{query}}\n",
        yes="1",
        no="0",
        scale=1.0,
        begin="",
        max_tokens=8192,
        source="mixedbread-ai/mxbai-rerank mxbai_rerank_v2.py; vLLM examples/pooling/score/template/mxbai_rerank_v2.jinja",
    ),
    RerankTemplate(
        name="bge-reranker-v2-gemma",
        pattern=r"bge-reranker-v2-gemma",
        opening="A: {query}\n",
        closing="B: {document}\nGiven a query A and a passage B, determine whether the passage contains an answer to the "
        "query by providing a prediction of either 'Yes' or 'No'.",
        instructed=None,
        yes="Yes",
        no=None,
        scale=1.0,
        begin="<bos>",
        max_tokens=1024,
        source="model card of BAAI/bge-reranker-v2-gemma; vLLM examples/pooling/score/template/bge-reranker-v2-gemma.jinja",
    ),
    RerankTemplate(
        name="zerank-2",
        pattern=r"zerank-2",
        opening="<|im_start|>system\n{query}<|im_end|>\n",
        closing=f"<|im_start|>user\n{{document}}{_ANSWER}",
        instructed="<|im_start|>system\n<query>{query}</query>\n<instruction>{instruction}</instruction><|im_end|>\n",
        yes="Yes",
        no=None,
        scale=0.2,
        begin="",
        max_tokens=8192,
        source="modeling_zeranker.py of zeroentropy/zerank-2; vLLM examples/pooling/score/template/zerank2.jinja",
    ),
    RerankTemplate(
        name="ctxl-rerank-v2",
        pattern=r"ctxl-rerank-v2-instruct-multilingual",
        opening="Check whether a given document contains information helpful to answer the query.\n",
        closing="<Document> {document}\n<Query> {query} ??",
        instructed="<Document> {document}\n<Query> {query} {instruction} ??",
        yes=0,
        no=None,
        scale=1.0,
        begin="",
        max_tokens=8192,
        source="model card of ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
    ),
    RerankTemplate(
        name="llama-nemotron-rerank",
        pattern=r"llama-nemotron-rerank-1b-v2",
        opening="question:{query} \n \n ",
        closing="passage:{document}",
        instructed=None,
        yes="",
        no=None,
        scale=1.0,
        begin="",
        max_tokens=8192,
        source="vLLM examples/pooling/score/template/nemotron-rerank.jinja",
    ),
)


def rerank_template(*models: str | None) -> RerankTemplate | None:
    """The template of the first of these models that is known. A model is its Hub id, or the name of its folder."""
    for model in models:
        name = (model or "").rstrip("/").rsplit("/", 1)[-1].lower()
        for row in TEMPLATES:
            if re.search(row.pattern, name):
                return row
    return None


def named_template(name: str | None) -> RerankTemplate | None:
    """The template of this name."""
    return next((row for row in TEMPLATES if row.name == name), None)


class RerankTemplateStep:
    """A pipeline step that writes the prompts of a model, and passes instructions on to a server that writes them.

    Args:
        handler: the next step.
        template: to write; `None` if the server or the runtime does it.
        instruction: of the endpoint, for calls without their own.
        takes_instruction: whether the model follows instructions.
    """

    def __init__(
        self,
        handler: Handler,
        template: RerankTemplate | None,
        *,
        instruction: str | None,
        takes_instruction: bool,
    ) -> None:
        self._handler = handler
        self._template = template
        self._instruction = instruction
        self._takes_instruction = takes_instruction

    async def __call__(self, call: Call) -> Result:
        """Raises: InvalidRequest: the model does not follow instructions."""
        if isinstance(call, Rerank):
            call = self._with_instruction(call)
            if self._template is not None and call.texts:
                call = templated(call, self._template)
        return await self._handler(call)

    def _with_instruction(self, call: Rerank) -> Rerank:
        if call.instruction and not self._takes_instruction:
            raise InvalidRequest(
                "This endpoint's model does not follow instructions, or its server does not accept any.",
                remedy="Omit [instruction].",
            )
        if self._instruction and not call.instruction:
            return replace(call, instruction=self._instruction)
        return call


def templated(call: Rerank, template: RerankTemplate) -> Rerank:
    """The call with prompts instead of its texts. A text that is too long is refused, not truncated.

    A server would truncate the end of the prompt, which asks the model for its answer.
    """
    texts: Sequence[tuple[str, str]] = [
        template.render(call.query, text, call.instruction) for text in call.texts
    ]
    return replace(
        call, query=texts[0][0], texts=[closing for _, closing in texts], instruction=None, truncate=False
    )
