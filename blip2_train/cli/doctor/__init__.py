"""Examines a set-up before a run is paid for: devices, data, weights, memory, disk, Java and time."""
