"""What a bulk job takes before it starts, from a sample of its texts."""
