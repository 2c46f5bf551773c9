"""The notebooks of the documentation: made from plain text, run on a model, and written with what came out."""
