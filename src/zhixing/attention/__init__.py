"""Attention, and how to compute it with little memory."""
