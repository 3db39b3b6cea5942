"""Copy code out of the package `zhixing` as standalone files; check and update these copies.

Contains no deep learning, and depends only on Python's standard library.
"""
