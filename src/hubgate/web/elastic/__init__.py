"""The Elasticsearch face: the `_inference` API. CONTRACT.md describes what it guarantees."""
