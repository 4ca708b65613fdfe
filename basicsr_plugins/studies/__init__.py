"""The deraining-generalization studies (arXiv 2305.15134, 2502.12600): toy, complexity, rain sweep."""
