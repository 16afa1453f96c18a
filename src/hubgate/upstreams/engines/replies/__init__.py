"""Reading what each kind of server sends: vectors, text, events, errors."""
