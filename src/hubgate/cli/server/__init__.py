"""`hubgate serve`: the gateway as a process."""
