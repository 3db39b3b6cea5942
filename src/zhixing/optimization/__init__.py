"""Optimisers, and what they optimise."""
