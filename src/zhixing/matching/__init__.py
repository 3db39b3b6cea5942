"""Local features, two-view geometry and optical flow: which points of two images are the same."""
