"""Readers of the caption, question and prediction files of others, one for each layout, strict or lenient."""
