"""Lists of recordings to batches."""
