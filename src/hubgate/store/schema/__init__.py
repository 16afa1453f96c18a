"""The version of the tables, and the functions that only PostgreSQL has."""
