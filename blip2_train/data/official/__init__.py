"""Readers and writers of the files that COCO, Karpathy, LAVIS, NoCaps and their evaluation servers use."""
