"""Shows that the versions of other packages that `pyproject.toml` admits work, in environments of their own."""
