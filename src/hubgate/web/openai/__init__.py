"""The OpenAI face: /v1. CONTRACT.md says what it promises."""
