"""Make the site: HTML with MkDocs, and everything that lies beside it."""
