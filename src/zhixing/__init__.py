"""知行 Zhixing: deep learning, one module an article: `zhixing.<area>.<article>`."""
