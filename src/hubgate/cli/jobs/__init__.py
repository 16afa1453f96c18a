"""`hubgate job …`: bulk jobs from the command line."""
