"""Memory is counted once, weights are not, and what is gone is gone."""

import time

import pytest
import torch
from benchmark.comparisons.memory import compare
from benchmark.memory import step_memory
from benchmark.meters import Clock
from benchmark.options import split_options
from benchmark.stages import stage_of
from plain import no_mark
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from blip2_train.config.compose import compose, instantiate
from blip2_train.models.step_memory import MostAlive


def test_most_alive_at_a_time() -> None:
    with MostAlive() as alive:
        first = torch.zeros(1000)
        view = first.view(10, 100).t()
        second = view + 1
        assert alive.most == 8000
        del first, second
        third = torch.cat([view, view])  # 4000 still alive by the view
        assert alive.most == 12000
        third.add_(1)
        assert alive.most == 12000


def test_frozen_weights_are_not_kept_for_backward() -> None:
    layer, values = nn.Linear(64, 64, bias=False).requires_grad_(False), torch.randn(3, 64, requires_grad=True)
    memory = step_memory(lambda: layer(values).exp().sum().backward(), layer, torch.device("cpu"))
    assert memory.peak_bytes == 3 * 64 * 4  # the result of exp
    assert memory.alive_bytes is not None and memory.alive_bytes >= memory.peak_bytes


def test_processor_time_does_not_grow_while_waiting() -> None:
    clock = Clock(torch.device("cpu"))
    clock.start()
    time.sleep(0.2)
    clock.mark("waiting")
    assert clock.parts()["waiting"] >= 0.2
    assert clock.busy() < 0.1


@pytest.mark.slow
def test_labelled_positions_save_the_logits_of_the_others() -> None:
    """At the paper's size, OPT-2.7B after 32 queries and 32 tokens, on tensors without values; no tower."""
    recipe = ["experiment=stage2_vit_g_opt_2.7b", "init_from=null"]
    choice = ["device=cpu", "vision=false", "batch_size=16", "tokens=32-32", "plans=all_positions,labelled"]
    options, rest = split_options([*recipe, *choice])
    config = compose(rest)
    stage, most = stage_of(config), {}
    with torch.device("meta"):
        empty = stage.build_model(config, options)
    batch = stage.synthetic_batch(empty, options, config.max_text_length, torch.Generator().manual_seed(0))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = empty.to_empty(device="cpu")
        for plan in stage.build_plans(options.plans, model, instantiate(config.objective), count_only=True):
            with MostAlive() as alive:
                loss = plan.forward(batch, no_mark)
                assert loss is not None
                loss.backward()
            model.zero_grad(set_to_none=True)
            most[plan.name] = alive.most / len(batch) / 2**20
    logits = 63 * 50272 * 4 / 2**20  # MiB per sample in float32
    assert most["labelled"] < 275
    assert most["all_positions"] - most["labelled"] > 1.3 * logits


@pytest.mark.slow
def test_stage_2_keeps_less_than_transformers() -> None:
    compared = {comparison.name: comparison for comparison in compare()}
    assert compared["stage2_bytes_vs_released"].held
