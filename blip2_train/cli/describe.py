"""`python scripts/describe.py experiment=<recipe> [memory=true]`: the model part by part, without making one weight."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2_train.cli.terminal import config_from, run_command
from blip2_train.config.compose import instantiate
from blip2_train.config.key_values import flags_as_settings, split_settings
from blip2_train.errors import Blip2TrainError
from blip2_train.system.screen import echo, make_console

if TYPE_CHECKING:
    from blip2_train.models.freezing import PartSize

ABOUT = (
    "Show what a recipe's model consists of and what trains; with memory=true (or --memory) also the memory it needs."
)
USAGE = "python scripts/describe.py [memory=true]"
FLAGS = {"--memory": "memory=true"}
"""Other forms of settings."""

PAPER = {
    "stage2_vit_l_opt_2.7b": "Table 2 of the paper: 104M of 3.1B",
    "stage2_vit_g_opt_2.7b": "Table 2 of the paper: 107M of 3.8B",
    "stage2_vit_g_opt_6.7b": "Table 2 of the paper: 108M of 7.8B",
    "stage2_vit_l_flan_t5_xl": "Table 2 of the paper: 103M of 3.4B",
    "stage2_vit_g_flan_t5_xl": "Table 2 of the paper: 107M of 4.1B",
    "stage2_vit_g_flan_t5_xxl": "Table 2 of the paper: 108M of 12.1B",
    "caption_coco_opt_2.7b": "Table 3 of the paper: 1.1B trainable",
    "caption_coco_opt_6.7b": "Table 3 of the paper: 1.1B trainable",
    "caption_coco_flan_t5_xl": "Table 3 of the paper: 1.1B trainable",
    "retrieval_coco_vit_g": "Table 5 of the paper: 1.2B trainable",
    "retrieval_coco_vit_l": "Table 5 of the paper: 474M trainable",
}
"""Parameters as printed in Li et al., 2023. The totals of the FlanT5-XL rows of Table 2 are 0.16B above the sum of the
parts, which the paper does not explain."""


@dataclass(frozen=True, kw_only=True)
class DescribeOptions:
    """What is shown beside the parts of the model."""

    memory: bool = False


def main(arguments: list[str]) -> None:
    """Build the model on the meta device and print its parts, and with `memory=true` what they take."""
    options, settings = split_settings(flags_as_settings(arguments, FLAGS), DescribeOptions)
    config = config_from(["init_from=null", *settings], ABOUT, USAGE)  # first, so that a user's own init_from counts
    if config is None:
        return
    from blip2_train.cli.meta_model import meta_model  # loads torch, as what follows; help and lists do not need it
    from blip2_train.cli.part_sizes import parts_table
    from blip2_train.config.starting_weights import find_starting_weights
    from blip2_train.models.freezing import describe_parameters

    try:
        find_starting_weights(config)
    except Blip2TrainError as error:
        echo(f"note: {error}; the sizes shown are the recipe's", file=sys.stderr)
    model = meta_model(config)
    parts, console = describe_parameters(model), make_console()
    console.print(parts_table(parts))
    echo(parameter_line(parts, config.experiment if config.peft is None and config.init_from is None else ""))
    if options.memory:
        from blip2_train.cli.doctor.machine import find_machine
        from blip2_train.cli.memory_table import show_activations, show_memory  # what counts steps is slow to import

        show_memory(model, console, stored_features=config.data.get("features") is not None)
        precision = str(config.trainer.precision) if config.trainer.accelerator in ("gpu", "cuda") else "bf16-mixed"
        share = config.global_batch_size // find_machine(config.trainer, None).processes
        show_activations(model, instantiate(config.objective), config.max_text_length, precision, console, share)


def parameter_line(parts: Sequence[PartSize], recipe: str) -> str:
    """How many parameters train, and of how many; beside it the paper's figure for this model."""
    trainable, total = (sum(count) for count in zip(*((p.trainable, p.parameters) for p in parts), strict=True))
    line = f"trainable parameters: {trainable:,} of {total:,}"
    if recipe in PAPER:
        line += f" ({PAPER[recipe]})"
    return line


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
