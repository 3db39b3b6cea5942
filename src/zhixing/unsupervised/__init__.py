"""Generative models with exact probabilities, and bounds on mutual information."""
