"""Draws the figures of the documentation from what the code computes."""
