"""The words of hubgate: endpoints, calls, results, errors, and the ports between floors. Standard library only."""
