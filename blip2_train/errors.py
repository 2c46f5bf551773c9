"""Errors a reader can act on: each message names the thing, its value, and what to do."""


class Blip2TrainError(Exception):
    """Base of every error caused by a user's input. Commands print it as one line and exit with 2."""


class ConfigError(Blip2TrainError):
    """A configuration key or value cannot be used."""


class CheckpointMismatch(Blip2TrainError):
    """Weights, a tokenizer or a training state do not fit what they are loaded into."""


class ShardError(Blip2TrainError):
    """A data source, shard or annotation file cannot be read, or too many of its samples cannot."""


class TrainingError(Blip2TrainError):
    """A run cannot continue, or ended without what was asked of it."""
