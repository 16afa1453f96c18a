"""Other gateways, each installed from a lock into an environment of its own and put before the canned model."""
