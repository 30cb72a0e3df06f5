"""Waves to a vector, and models on disk."""
