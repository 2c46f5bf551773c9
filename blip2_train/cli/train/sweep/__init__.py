"""One run for each combination of values: one after the other here, or submitted by Hydra's submitit launcher."""
