"""The command line: parse, call one verb of the gate, print."""
