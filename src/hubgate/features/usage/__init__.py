"""Usage by endpoint and key: counted, stored, reported."""
