"""Policy gradients: learning from rewards of one's own actions."""
