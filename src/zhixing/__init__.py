"""知行 Zhixing: deep learning, one module per article: `zhixing.<area>.<article>`."""
