"""Tables of the memory a model needs: as a model card counts it, and as this project trains it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from torch import nn

from blip2_train.models.adapted_layers import is_adapter
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.generative import GenerativeModel
from blip2_train.models.memory import card_count, language_model_bytes, stored_bytes, training_state_bytes
from blip2_train.system.error_reasons import reason_of
from blip2_train.system.tables import NumbersTable
from blip2_train.training.planned_memory import CARDS, FRAGMENTS, RESERVED, PlannedStep, plan_step, usable_bytes

_HALF = ("float16", "bfloat16")
_CARD = (("float32", 32), ("16 bits", 16), ("int8", 8), ("int4", 4))
_CARD_NOTE = (
    "MB and GB as on the cards: 2^20 and 2^30 bytes. A tied vocabulary head counts twice, and training keeps gradients "
    "and two moments of frozen parts too."
)
_TRAINING_NOTE = (
    "Every weight once. int8 and int4: linear layers, with their scales; embeddings, norms, biases and vocabulary head "
    "stay as configured. Training adds gradients and AdamW's two moments of what trains; activations come on top."
)
_ACTIVATION_NOTE = (
    "Counted on a step of the recipe without values, as a GPU computes it. Kept: for the backward pass. At most: with "
    "what is being computed, and the batch. {reserved:.1f} GiB of a GPU are left to CUDA and {fragments:.0%} to gaps; "
    "several processes need buffers for negatives too. Shorter texts take less."
)


def show_memory(model: nn.Module, console: Console, stored_features: bool = False) -> None:
    """Print both tables, each with what it counts.

    Args:
        model: Any; of a `Blip2Model`, the tower gives up its weights if it is to read stored features.
        console: Where to.
        stored_features: Whether the run reads stored features, so that it needs no weights of the tower.
    """
    _show(card_table(model), _CARD_NOTE, console)
    if stored_features and isinstance(model, Blip2Model) and model.vision_model.frozen:
        model.vision_model.read_features()
    _show(training_table(model), _TRAINING_NOTE, console)


def _show(table: NumbersTable, note: str, console: Console) -> None:
    console.print()
    console.print(table)
    console.print(note, style="dim", highlight=False)


def show_activations(
    model: Blip2Model, objective: Any, max_text_length: int, precision: str, console: Console, step_samples: int
) -> None:
    """Print what a step of a recipe takes beside its weights, and the largest micro-batches of some GPUs.

    Args:
        model: On the meta device.
        objective: Its loss.
        max_text_length: Tokens.
        precision: The trainer's.
        console: Where to.
        step_samples: Samples of a step in one process.
    """
    try:
        step = plan_step(model, objective, max_text_length, precision, on_gpu=True)
    except Exception as error:  # an objective of one's own may do what tensors without values cannot
        console.print(f"\nactivations cannot be counted: {reason_of(error)}", highlight=False)
        return
    console.print()
    console.print(activation_table(step, max_text_length, precision, step_samples))
    state = stored_bytes(model) + training_state_bytes(model)
    console.print(largest_line(step, state, step_samples), highlight=False, soft_wrap=True)
    console.print(_ACTIVATION_NOTE.format(reserved=RESERVED / 2**30, fragments=FRAGMENTS), style="dim", highlight=False)


def activation_table(step: PlannedStep, max_text_length: int, precision: str, step_samples: int) -> NumbersTable:
    """Bytes of a step beside weights, gradients and the optimiser."""
    table = _table(f"activations, {precision}, texts of {max_text_length} tokens", "", "kept", "at most")
    table.add_row("whatever the micro-batch", exact_size(step.kept_fixed), exact_size(step.most_fixed))
    table.add_row("for each sample", exact_size(step.kept_per_sample), exact_size(step.most_per_sample))
    if step.most_per_step_sample:
        table.add_row(f"for each of the {step_samples:,} samples of a step", "", exact_size(step.most_per_step_sample))
    return table


def largest_line(step: PlannedStep, state: float, step_samples: int = 0) -> str:
    """The largest micro-batch of each GPU of `CARDS`, beside `state` bytes of weights and optimiser.

    Args:
        step: What it takes.
        state: Bytes.
        step_samples: Samples of a step in one process.

    Example:
        >>> step = PlannedStep(kept_fixed=0, kept_per_sample=2**30, most_fixed=0, most_per_sample=2**30)
        >>> largest_line(step, 25 * 2**30)
        'largest micro-batch: none on 24 GB, 11 on 40 GB, 49 on 80 GB, 107 on 141 GB'
    """
    sizes = [(step.largest_micro_batch(usable_bytes(card) - state, step_samples), card) for card in CARDS]
    return "largest micro-batch: " + ", ".join(f"{size or 'none'} on {card} GB" for size, card in sizes)


def card_table(model: nn.Module) -> NumbersTable:
    """The memory table of published model cards: everything in one precision, everything trained."""
    count = card_count(model)
    table = _table(
        "memory as model cards count it", "all numbers in", "largest layer", "total size", "training with Adam"
    )
    for name, bits in _CARD:
        sizes = count.largest_layer_bytes(bits), count.total_bytes(bits), count.training_bytes(bits)
        table.add_row(name, *(card_size(size) for size in sizes))
    return table


def training_table(model: nn.Module) -> NumbersTable:
    """What the weights take and what training takes, for each precision of the language model."""
    table = _table("memory of this recipe", "", "weights", "training adds", "together")
    state = training_state_bytes(model)
    rows = _by_precision(model) if isinstance(model, GenerativeModel) else [("as configured", stored_bytes(model))]
    for name, weights in rows:
        table.add_row(name, exact_size(weights), exact_size(state), exact_size(weights + state))
    return table


def card_size(size: float) -> str:
    """Bytes as cards write them, two decimals at most.

    Example:
        >>> card_size(1.8037 * 2**30), card_size(490.9375 * 2**20)
        ('1.8 GB', '490.94 MB')
    """
    value, power = _scaled(size)
    return f"{round(value, 2):.10g} {'KMG'[power - 1]}B"


def exact_size(size: float) -> str:
    """Bytes in KiB, MiB or GiB, two decimals.

    Example:
        >>> exact_size(3 * 2**29)
        '1.50 GiB'
    """
    value, power = _scaled(size)
    return f"{value:.2f} {'KMG'[power - 1]}iB"


def _by_precision(model: GenerativeModel) -> list[tuple[str, int]]:
    config = model.language_config
    adapters = [p for name, p in model.language_model.named_parameters() if is_adapter(name)]
    others = stored_bytes(model) - stored_bytes(model.language_model)
    others += sum(parameter.numel() * parameter.element_size() for parameter in adapters)
    half = config.dtype if config.dtype in _HALF else "bfloat16"
    own = config.dtype if config.quantization == "none" else config.quantization
    sizes = {
        "float32": language_model_bytes(config, "float32"),
        half: language_model_bytes(config, half),
        "int8": language_model_bytes(config, config.dtype, "int8"),
        "int4": language_model_bytes(config, config.dtype, "int4"),
    }
    return [
        (f"language model in {name}" + (", as configured" if name == own else ""), others + size)
        for name, size in sizes.items()
    ]


def _scaled(size: float) -> tuple[float, int]:
    power = next((p for p in (3, 2) if size >= 1024**p), 1)
    return size / 1024**power, power


def _table(title: str, *columns: str) -> NumbersTable:
    return NumbersTable(columns, title=title)
