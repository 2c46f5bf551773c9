"""The command that stores features of a frozen vision tower."""
