"""The types that all floors share: endpoints, calls, results, errors, and the ports. Standard library only."""
