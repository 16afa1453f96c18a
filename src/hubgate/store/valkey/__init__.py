"""What gateways share in a Valkey or Redis server."""
