"""The benchmark of reading: images per second, waiting, and resuming."""
