"""Times and counts stage-1 steps, part by part, of several plans in one run."""
