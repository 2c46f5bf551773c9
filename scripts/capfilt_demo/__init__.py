"""What CapFilt is worth on the emoji scenes."""
