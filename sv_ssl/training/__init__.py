"""Run one experiment."""
