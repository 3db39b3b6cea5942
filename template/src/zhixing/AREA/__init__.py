"""AREA_TITLE."""
