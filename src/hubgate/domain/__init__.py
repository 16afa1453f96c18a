"""The types that all layers share: endpoints, calls, results, errors, and the ports. Standard library only."""
