"""Writes models in the formats of others: transformers and LAVIS."""
