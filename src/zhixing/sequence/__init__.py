"""Sequence models with a state of fixed size."""
