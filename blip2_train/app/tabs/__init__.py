"""The tabs of the page, one file each: what is on it, and which plain function answers."""
