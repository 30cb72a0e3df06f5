"""Lists to scores to errors."""
