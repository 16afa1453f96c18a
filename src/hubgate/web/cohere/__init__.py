"""The Cohere face: /v1 and /v2 of Cohere's API. CONTRACT.md describes what it guarantees."""
