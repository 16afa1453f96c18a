"""Inference Endpoints that hubgate creates: plans, what manages them, and following them until they are registered."""
