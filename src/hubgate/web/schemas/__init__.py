"""The JSON and YAML that hubgate takes and gives: endpoints, the configuration, and their validation."""
