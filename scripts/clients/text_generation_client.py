"""The client of text-generation-inference, unchanged since 2024."""

from __future__ import annotations

from expected import HEADERS, PROMPT, SAID, URL, check_refused, check_text, version_of
from text_generation import Client  # type: ignore[import-not-found]
from text_generation.errors import ValidationError  # type: ignore[import-not-found]

version_of("text-generation")

client = Client(f"{URL}/hf/llm", headers=HEADERS, timeout=60)
answer = client.generate(PROMPT, max_new_tokens=20)
check_text(answer.generated_text, "generate")
assert answer.details.generated_tokens == len(SAID.split())
events = list(client.generate_stream(PROMPT, max_new_tokens=20))
check_text("".join(event.token.text for event in events if not event.token.special), "generate_stream")
check_text(events[-1].generated_text, "generate_stream's last event")
check_refused(
    lambda: client.generate(PROMPT, watermark=True), ValidationError, "does not support [watermark]"
)
