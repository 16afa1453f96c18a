"""Registering endpoints and connections, and changing them."""
