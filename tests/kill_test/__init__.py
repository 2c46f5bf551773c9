"""Trains a small run, kills the same run again and again, and compares what is left of both."""
