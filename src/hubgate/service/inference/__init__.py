"""Calls to models: their pipelines, chunks, rate limit records and vector cache."""
