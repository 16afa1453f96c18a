"""Algorithms over domain types. A clock is an argument; no HTTP, no SQL."""
