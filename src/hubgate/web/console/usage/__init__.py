"""The console's usage page."""
