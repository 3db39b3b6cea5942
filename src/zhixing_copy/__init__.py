"""Take code out of the package `zhixing`: files that stand alone, and what was made of them since.

Knows no deep learning, and needs nothing but Python.
"""
