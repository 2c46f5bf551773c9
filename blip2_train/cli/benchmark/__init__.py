"""Times and counts the steps of both stages, part by part, of several plans in one run."""
