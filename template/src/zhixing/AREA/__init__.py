"""TITLE and its relatives."""
