"""Counts of the code: sizes of rooms, files of a training step, imports, words."""
