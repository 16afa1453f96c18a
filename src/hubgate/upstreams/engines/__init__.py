"""How each kind of model server is recognised, asked and read: pure functions over values, one row per server."""
