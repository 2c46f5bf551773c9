"""Shows that exports for transformers are read alike by another version of it, in an environment of its own."""
