"""The benchmark of reading: pictures per second, waiting, and resuming."""
