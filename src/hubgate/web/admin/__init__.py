"""hubgate's own API: /api, for the command line, the console and automation."""
