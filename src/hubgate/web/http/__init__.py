"""What every request passes, whatever its API: keys, bodies, routes, errors, health."""
