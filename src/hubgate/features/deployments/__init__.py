"""Inference Endpoints that hubgate plans, creates and manages at Hugging Face."""
