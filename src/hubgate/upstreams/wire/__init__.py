"""How each kind of server spells a call and its reply: pure functions over values, one row a server."""
