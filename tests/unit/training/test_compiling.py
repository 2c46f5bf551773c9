"""Compiled passes compute what the model computes, as one graph each, for texts of any length."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import VOCABULARY, image_text_batch, image_text_model
from tiny_generation import generation_batch, generative_model
from torch import Tensor, fx, nn

from blip2_train.errors import ConfigError, TrainingError
from blip2_train.objectives.generation import GenerationObjective
from blip2_train.objectives.representation import RepresentationObjective
from blip2_train.training.compiling import CompilePasses, compiled_passes
from blip2_train.training.module import TrainingModule
from blip2_train.training.sharding import ShardedStrategy
from blip2_train.types import ImageTextBatch

LENGTHS = (8, 11, 32, 17, 8, 24, 31, 32, 9)
DROPOUT = {"dropout": 0.1, "attention_dropout": 0.1, "num_layers": 2}


class Graphs:
    """A backend that runs a graph as it is, and counts the graphs of each kind of function by its inputs' names."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
        names = " ".join(str(node.name) for node in graph.graph.nodes if node.op == "placeholder")
        kinds = {"image_kvs": "reads images", "cache": "reads a cache", "embeddings": "text alone"}
        reads = next((kind for name, kind in kinds.items() if f"l_{name}" in names), "tower")
        self.counts[f"{reads}, with text" if reads == "reads images" and "packing" in names else reads] += 1
        return graph.forward


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def batch_of(length: int, seed: int) -> ImageTextBatch:
    """Five texts of 4 … `length` tokens, the first of which is that long."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, length + 1, (5,), generator=generator)
    lengths[0] = length
    mask = torch.arange(length)[None] < lengths[:, None]
    ids = torch.randint(5, VOCABULARY - 1, (5, length), generator=generator) * mask
    ids[:, 0] = 2
    return dataclasses.replace(image_text_batch(5, seed=seed), input_ids=ids, attention_mask=mask, longest_text=length)


def step(objective: Any, model: nn.Module, batch: Any, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients; dropout and negatives follow from the seed."""
    torch.manual_seed(seed)
    model.zero_grad()
    loss: Tensor = objective(model, batch, torch.Generator().manual_seed(seed)).total
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def compiled(model: Any, backend: Any) -> Any:
    for part, replaced in compiled_passes(model, backend).items():
        part.forward = replaced  # type: ignore[method-assign]
    return model


def test_a_tower_that_reads_features_is_left_out() -> None:
    model = image_text_model()
    blocks = set(model.vision_model.blocks)
    assert compiled_passes(model, Graphs()).keys() == {model.qformer, *blocks}
    model.vision_model.read_features()
    assert compiled_passes(model, Graphs()).keys() == {model.qformer}


@pytest.mark.slow
def test_stage_1_is_five_graphs_whatever_the_lengths() -> None:
    """Two recompilations of each at most: where a size is met a second time, and where it equals another one."""
    graphs, objective = Graphs(), RepresentationObjective()
    plain, fast = image_text_model(**DROPOUT).train(), compiled(image_text_model(**DROPOUT).train(), graphs)
    for seed, length in enumerate(LENGTHS):
        batch = batch_of(length, seed)
        (expected, slopes), (loss, gradients) = (step(objective, one, batch, seed) for one in (plain, fast))
        assert torch.equal(loss, expected) and gradients.keys() == slopes.keys()
        assert all(torch.equal(gradients[name], slopes[name]) for name in slopes)
    assert graphs.counts.pop("tower") == 1, "one graph for all blocks"
    assert graphs.counts.keys() == {"reads images", "reads images, with text", "reads a cache", "text alone"}
    assert max(graphs.counts.values()) <= 3, graphs.counts


@pytest.mark.slow
def test_a_trained_tower_in_16_bits() -> None:
    graphs, vision = Graphs(), {"vision": {"frozen": False}}
    plain, fast = image_text_model(**vision).train(), compiled(image_text_model(**vision).train(), graphs)
    slopes = []
    for model in (plain, fast):
        with torch.autocast("cpu", torch.bfloat16):
            model.vision_model(image_text_batch().pixel_values).float().square().sum().backward()
        slopes.append({name: p.grad for name, p in model.vision_model.named_parameters()})
    assert graphs.counts == {"tower": 1}
    assert all(torch.equal(gradient, slopes[1][name]) for name, gradient in slopes[0].items())


@pytest.mark.slow
def test_stage_2() -> None:
    graphs, objective = Graphs(), GenerationObjective()
    plain, fast = generative_model().train(), compiled(generative_model().train(), graphs)
    for seed, length in enumerate((9, 12, 7)):
        batch = generation_batch(plain, seed=seed, length=length)
        (expected, slopes), (loss, gradients) = (step(objective, one, batch, seed) for one in (plain, fast))
        assert torch.equal(loss, expected) and all(torch.equal(gradients[name], slopes[name]) for name in slopes)
    assert graphs.counts == {"tower": 1, "reads images": 1}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_inductor_computes_the_same() -> None:
    """The image pass by kernels of its own, with the random numbers of the uncompiled model."""
    options: dict[str, Any] = {**DROPOUT, "num_layers": 1, "vision": {"overrides": {"depth": 2, "embed_dim": 24,
                               "num_heads": 2, "patch_size": 8}}}  # fmt: skip
    plain, fast = image_text_model(**options).train(), compiled(image_text_model(**options).train(), "inductor")
    states, slopes = [], []
    for model in (plain, fast):
        torch.manual_seed(0)
        states.append(model.encode_image(image_text_batch().pixel_values).query_states)
        states[-1].square().sum().backward()
        slopes.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(states[1], states[0], rtol=1e-4, atol=1e-5)
    assert slopes[0].keys() == slopes[1].keys()
    for name, slope in slopes[0].items():
        assert (slopes[1][name] - slope).norm() <= 1e-4 * slope.norm() + 1e-4, name


def trained(model: Any, strategy: Any = None) -> tuple[Any, Any]:
    """A trainer and a training module, as far as the callback looks at them."""
    module = TrainingModule.__new__(TrainingModule)
    nn.Module.__init__(module)
    module.model = model
    return SimpleNamespace(strategy=strategy), module


def test_nothing_of_it_stays_between_batches() -> None:
    model = image_text_model(num_layers=1)
    names, callback = list(model.state_dict()), CompilePasses("eager")
    callback.on_fit_start(*trained(model))
    callback.on_train_batch_start(None, None, None, 0)
    parts = [model.qformer, *model.vision_model.blocks]
    assert all("forward" in vars(part) for part in parts) and list(model.state_dict()) == names
    callback.on_train_batch_end(None, None, None, None, 0)
    assert not any("forward" in vars(part) for part in model.modules())
    twin = copy.deepcopy(model)
    assert list(twin.state_dict()) == names
    callback.on_train_batch_start(None, None, None, 0)
    callback.on_exception(None, None, KeyboardInterrupt())
    assert not any("forward" in vars(part) for part in model.modules())


def test_a_sharded_model_is_refused() -> None:
    strategy = ShardedStrategy.__new__(ShardedStrategy)
    with pytest.raises(ConfigError, match="does not go with trainer=fsdp"):
        CompilePasses().on_fit_start(*trained(image_text_model(num_layers=1), strategy))


@pytest.mark.slow
def test_what_cannot_be_compiled_is_one_line() -> None:
    def broken(graph: fx.GraphModule, inputs: list[Tensor]) -> Any:
        raise RuntimeError("no C++ compiler\nwas found")

    model = compiled(image_text_model(num_layers=1).train(), broken)
    with pytest.raises(TrainingError) as refused:
        model.vision_model(torch.randn(1, 3, 32, 32))
    line = str(refused.value)
    assert "\n" not in line and "cannot compile a block of the vision tower" in line and "no C++ compiler" in line
    assert "pass trainer.compile=false" in line
