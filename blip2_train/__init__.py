"""blip2_train: training and evaluation of BLIP-2 (Li et al., 2023, arXiv:2301.12597)."""

__version__ = "0.1.0"
