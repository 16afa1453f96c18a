"""The bodies that each kind of server is sent."""
