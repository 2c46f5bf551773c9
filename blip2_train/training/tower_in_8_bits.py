"""Lets a frozen tower compute in 8 bits from the beginning of a run, once its weights are on their device."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import Callback

from blip2_train.models.tower_quantization import quantize_tower
from blip2_train.training.module import TrainingModule


class TowerIn8Bits(Callback):
    """Quantises the tower; checkpoints and exports name the weights that it had before, as without this.

    Args:
        quantization: `int8` or `float8`, see `quantize_tower`.
    """

    def __init__(self, quantization: str) -> None:
        self.quantization = quantization

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Quantise it, unless an earlier run of the same model has.

        Raises:
            ConfigError: if the tower trains, or the device or an extra is missing.
        """
        assert isinstance(pl_module, TrainingModule)
        pl_module.frozen_fingerprint()  # kept from now on: of the weights as they were
        quantize_tower(pl_module.model.vision_model, self.quantization, "trainer.vision_quantization")
