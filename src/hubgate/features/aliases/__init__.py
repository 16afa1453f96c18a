"""Names that applications use for endpoints, and that an operator moves from one endpoint to another."""
