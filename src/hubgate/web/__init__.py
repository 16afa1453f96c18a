"""The faces: each API dialect, and the route map of the product in `app`."""
