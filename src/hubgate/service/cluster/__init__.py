"""Several gateways on one database, which behave as one."""
