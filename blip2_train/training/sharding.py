"""Shards a frozen language model, and what trains, over the processes (FSDP2); checkpoints stay as of a whole one.

The names of a language model's blocks, and the mark by which it generates in step with other processes, are private
attributes of transformers' models. Tried with transformers 5.24.0
and 5.25.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from blip2_train.checkpoints.files import fingerprint
from blip2_train.distributed import gather_objects, rank, world_size
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.models.adapted_layers import is_adapter
from blip2_train.models.blip2 import Blip2Model
from blip2_train.models.freezing import kept_names
from blip2_train.training.timeout import PATIENCE, wait_at_most

_USES_THE_MODEL = ("training_step", "validation_step", "on_validation_epoch_end")


class ShardedStrategy(ModelParallelStrategy):
    """Data parallelism in which each process holds only its share of the large parts, see `shard_model`.

    Lightning's own checkpoints of sharded models number the optimiser's state otherwise than those of whole ones; here
    both are the same, so that a run goes on with or without this strategy, on any number of processes.

    Args:
        patience: Seconds that a process waits for the others, see `DataParallelStrategy`.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=wait_at_most(patience))

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """No: the checkpoint is accepted before anything else starts, as without this strategy."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Yes, by `load_optimizer_state_dict`."""
        return True

    def setup_environment(self) -> None:
        """Join the process group; one mesh spans all processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole trainable weights, in the first process only; the frozen ones are not gathered."""
        assert self.lightning_module is not None
        keep, state = kept_names(self.lightning_module), self.lightning_module.state_dict()
        return gather_whole({name: tensor for name, tensor in state.items() if name in keep})

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's share of the weights of a checkpoint."""
        assert self.lightning_module is not None
        parameters = dict(self.lightning_module.named_parameters())
        state = {name: shard_like(parameters[name], value) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimiser's whole state, in the first process only."""
        state = Strategy.optimizer_state(self, optimizer)
        values = {index: gather_whole(moments) for index, moments in state["state"].items()}  # type: ignore[attr-defined]
        return {**state, "state": values} if rank() == 0 else {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's share of the optimiser's state of a checkpoint."""
        shares = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            values = {
                index: {key: shard_like(parameters[index], value) for key, value in moments.items()}
                for index, moments in state["state"].items()
            }
            shares.append({**state, "state": values})
        Strategy.load_optimizer_state_dict(self, {"optimizer_states": shares})

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint; nothing is loaded into the model yet."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


def shard_model(module: LightningModule, model: nn.Module, mesh: DeviceMesh, frozen_fingerprint: str) -> None:
    """Shard a model over processes that all hold the same one.

    Each block of a language model and of a trained tower becomes a group whose tensors are split along their first
    dimension, gathered when the block runs and let go after it. All other trainable parameters form one more group,
    gathered for the whole step. What is frozen outside the blocks (a frozen tower; token embeddings, vocabulary head
    and norms of the language model, which are also read from outside it) stays whole in every process, and so do
    trainable scalars, which cannot be split, and adapters, which are small.

    Everything keeps its dtype: frozen 16-bit blocks are gathered in 16 bits, what trains in float32, and autocast
    (`trainer.precision=bf16-mixed`) decides in what is computed, as without sharding.

    Args:
        module: The training module that holds `model`; its steps become what is run on gathered parameters.
        model: Of any stage.
        mesh: One dimension; its device type is where the shares go.
        frozen_fingerprint: SHA-256 of the frozen weights.

    Raises:
        ConfigError: if the language model is quantised, or its blocks cannot be found.
        CheckpointMismatch: if the processes hold different weights.
    """
    _refuse_different_weights(model, frozen_fingerprint)
    adapters = {parameter for name, parameter in model.named_parameters() if is_adapter(name)}
    for block in blocks_to_shard(model):
        fully_shard(block, mesh=mesh, ignored_params=adapters)
    in_blocks = {parameter for parameter in model.parameters() if isinstance(parameter, DTensor)}
    kept = adapters | {p for p in module.parameters() if p not in in_blocks and (not p.requires_grad or p.ndim == 0)}
    fully_shard(module, mesh=mesh, ignored_params=kept)
    for parameter in kept:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_mean_gradient)
    for name in _USES_THE_MODEL:
        register_fsdp_forward_method(module, name)
    parts = cast(Blip2Model, model)
    if parts.language_config is not None:  # transformers then lets all processes generate until the last is done
        parts.language_model._is_fsdp_managed_module = True  # type: ignore[assignment]


def blocks_to_shard(model: nn.Module) -> list[nn.Module]:
    """The blocks of the language model, if there is one, and of the tower, if it trains.

    Raises:
        ConfigError: if the language model is quantised, or its blocks cannot be found.
    """
    parts, blocks = cast(Blip2Model, model), list[nn.Module]()
    if (config := parts.language_config) is not None:
        if config.quantization != "none":
            raise ConfigError(
                f"trainer=fsdp cannot shard a language model in {config.quantization}; pass "
                "model.language.quantization=none, or trainer=ddp"
            )
        kinds = set(parts.language_model._no_split_modules or ())
        blocks += [part for part in parts.language_model.modules() if type(part).__name__ in kinds]
        if not blocks:
            raise ConfigError(
                f"trainer=fsdp finds no blocks in language model {config.name!r}: transformers' "
                f"{type(parts.language_model).__name__} names none (_no_split_modules); pass trainer=ddp"
            )
    if not parts.vision_model.frozen:
        blocks += parts.vision_model.blocks
    return blocks


def gather_whole(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Whole tensors on the CPU instead of shares, in the first process; nothing in the others.

    Where something is sharded, every process must call it.
    """
    gathered = {}
    for name, tensor in tensors.items():
        complete = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if rank() == 0:
            gathered[name] = complete.detach().cpu() if isinstance(complete, Tensor) else complete
    return gathered


def shard_like(parameter: Tensor, value: Any) -> Any:
    """This process's share of a whole tensor that belongs to a parameter, as the parameter is sharded.

    What is not sharded is returned as it is: a parameter that is whole, and the optimiser's number of steps.
    """
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def clip_by_norm(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Scale all gradients so that their common norm is at most `limit`, those of sharded and of whole parameters."""
    having = [p for p in parameters if p.grad is not None]
    sharded = [p for p in having if isinstance(p.grad, DTensor)]
    unsharded = [p for p in having if not isinstance(p.grad, DTensor)]
    norms = [
        nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in (sharded, unsharded) if kind
    ]
    plain = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    if not plain:
        return
    total = plain[0] if len(plain) == 1 else torch.linalg.vector_norm(torch.stack(plain))
    for kind in (sharded, unsharded):
        nn.utils.clip_grads_with_norm_(kind, limit, total)


def _mean_gradient(parameter: Tensor) -> None:
    """Average the gradient of a parameter that is not sharded; each backward pass adds to what is equal everywhere."""
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad)
    parameter.grad /= world_size()


def _refuse_different_weights(model: nn.Module, frozen_fingerprint: str) -> None:
    """Each process will contribute a share, so all must have started from the same weights."""
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    fingerprints = gather_objects((frozen_fingerprint, fingerprint(trainable)))
    if len(set(fingerprints)) > 1:
        other = next(index for index, value in enumerate(fingerprints) if value != fingerprints[0])
        raise CheckpointMismatch(
            f"process {other} starts from other weights than process 0 (their SHA-256 differs); give init_from and the "
            "model's weights as paths that lead to the same files on every machine"
        )
