"""Asks what matters when a Q-Former is trained: trains and scores the embedded world in several ways, with seeds."""
