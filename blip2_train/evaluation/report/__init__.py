"""The HTML page of an evaluation, and its results as JSON."""
