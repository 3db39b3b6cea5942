"""The builder: runs snippets, expands pages, checks everything, builds the sites. It knows no deep learning.

Read in the order of the data: snippet, run (watch, child, warned, trace, figure, cache), page (twins), expand
(formula), found (card, plain), build (links, serve), portable, environment, cli.
"""
