"""Readers of caption, question and prediction files, one for each layout, strict or lenient."""
