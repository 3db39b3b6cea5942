"""What surrounds the model: training on many processes, and the tools of the trade."""
