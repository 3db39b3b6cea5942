"""The builder of the site, which knows no deep learning.

The data goes one way: snippet → run → expand → site. `execution` runs snippets, `content` expands pages, `site` lets
MkDocs render them and writes everything beside them; `build`, `serve` and `scaffold` are what the command line calls.
"""
