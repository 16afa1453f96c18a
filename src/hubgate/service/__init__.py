"""The gateway: endpoints, calls, keys and usage, independent of the API and of where models run."""
