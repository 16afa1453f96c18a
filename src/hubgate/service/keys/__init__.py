"""Gateway keys: who may call, and how often."""
