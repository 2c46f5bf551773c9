"""Asks what matters when a Q-Former is trained: trains and scores on the emoji scenes in several ways, with seeds."""
