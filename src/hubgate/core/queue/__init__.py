"""Calls waiting for an endpoint: in fair order, in batches where they can share a request."""
