"""Read pages and write Markdown, from executed notebooks. Runs nothing, and knows no HTML generator."""
