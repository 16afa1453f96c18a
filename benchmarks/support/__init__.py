"""What the benchmarks share: a canned upstream, load, and the cost of a process tree."""
