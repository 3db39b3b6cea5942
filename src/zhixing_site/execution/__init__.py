"""Run snippets: cells to an executed notebook, which is cached by what it depends on. Knows no page."""
