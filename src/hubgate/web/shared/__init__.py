"""What all faces share: embeddings, reranking, generation and their streams."""
