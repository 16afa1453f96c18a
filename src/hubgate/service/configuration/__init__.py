"""The whole configuration as one document: the plan, and carrying it out."""
