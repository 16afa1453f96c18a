"""The kinds of model servers: pure functions over values, and one row for each kind in `specs`."""
