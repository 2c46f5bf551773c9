"""Builds everything under `blip2_train/assets/demo` from the unpacked emoji packages."""
