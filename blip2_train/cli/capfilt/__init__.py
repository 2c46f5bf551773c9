"""CapFilt as a command, and what it is worth on the emoji scenes."""
