"""The OpenAI face: /v1. CONTRACT.md describes what it guarantees."""
