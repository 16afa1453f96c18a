"""Registering, changing and checking endpoints and connections."""
