"""When a request may leave: rate limits, turns, retries, the circuit breaker."""
