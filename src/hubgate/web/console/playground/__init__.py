"""The console's playground, and the snippets for other clients."""
