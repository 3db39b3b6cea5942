"""知行 Zhixing: deep learning, article by article. One module an article: `zhixing.<area>.<article>`."""
