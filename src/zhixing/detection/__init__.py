"""Object detection, on synthetic scenes."""
