"""The vector cache on disk."""
