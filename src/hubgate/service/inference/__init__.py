"""The way of a call to a model, and what it needs."""
