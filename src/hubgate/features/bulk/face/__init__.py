"""Files and batches of OpenAI's API. The OpenAI face owns the paths, and so renders the errors."""
