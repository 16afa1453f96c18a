"""hubgate's own HTTP client: keep-alive connections on httptools."""
