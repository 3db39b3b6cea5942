"""The basis of all other areas."""
