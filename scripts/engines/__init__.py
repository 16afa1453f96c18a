"""The parts of `make test-engines`: real servers, and the requests sent to them through a gateway."""
