"""Comparisons of this project's fast paths with plain ones, each with the ratio it is to reach."""
