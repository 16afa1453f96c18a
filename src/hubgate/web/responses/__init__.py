"""The face for OpenAI's Responses API: /v1/responses. CONTRACT.md describes what it guarantees."""
