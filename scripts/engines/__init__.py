"""What `make test-engines` is made of: real servers, and what is asked of them through a gateway."""
