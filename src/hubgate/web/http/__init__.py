"""What every request passes, whatever its API: keys, bodies, errors, health."""
