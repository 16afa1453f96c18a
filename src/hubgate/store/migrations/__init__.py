"""How the database of an older hubgate becomes today's."""
