"""The Elasticsearch face: the `_inference` API. CONTRACT.md says what it promises."""
