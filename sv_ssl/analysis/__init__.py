"""What embeddings know."""
