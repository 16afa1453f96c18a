"""Gateway keys: authentication and rate limits."""
