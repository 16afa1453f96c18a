"""Hugging Face's own interfaces: the Hub, Inference Endpoints, Inference Providers."""
