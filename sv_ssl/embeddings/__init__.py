"""Make and keep vectors."""
