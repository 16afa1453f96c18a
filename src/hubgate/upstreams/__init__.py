"""Reaching models: sources, how each engine spells a call, and the sending of it."""
