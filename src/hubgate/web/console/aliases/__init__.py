"""The pages of aliases, and the comparison of two models before an alias moves."""
