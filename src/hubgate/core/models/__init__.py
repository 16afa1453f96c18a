"""What is known about models by their names."""
