"""Make the site: HTML with MkDocs, and all other files."""
