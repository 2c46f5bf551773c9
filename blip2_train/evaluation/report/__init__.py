"""The page that an evaluation leaves for people, and its results as JSON."""
