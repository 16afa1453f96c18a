"""Running a model on this machine: load, tokenise, batch by tokens, run. In a process of its own."""
