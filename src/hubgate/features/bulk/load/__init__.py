"""Loading a job's output into a vector database: `hubgate job load`."""
