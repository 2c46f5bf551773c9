"""CapFilt as a command, and what it is worth on the embedded world."""
