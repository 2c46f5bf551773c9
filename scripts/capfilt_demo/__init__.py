"""What CapFilt is worth on the embedded world."""
