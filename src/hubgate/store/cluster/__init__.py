"""What the gateways of one PostgreSQL database share besides its tables of settings and usage."""
