"""The images that a training run leaves: curves, captions, retrieval."""
