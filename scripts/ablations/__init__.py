"""Trains and scores the embedded world with and without parts of the paper's method, by the ordinary commands."""
