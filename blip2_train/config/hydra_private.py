"""The one private interface of Hydra that is used: launchers are made with callbacks, whose class is private.

Tried with hydra-core 1.3.2 and 1.3.8. Everything else of Hydra and omegaconf is reached by public names; a test
(`test_hydra_private`) looks for others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig


def instantiate_launcher(config: DictConfig, task: Callable[[DictConfig], Any]) -> Any:
    """The launcher that a configuration of Hydra names, without callbacks; while Hydra is initialised.

    Args:
        config: Composed with `return_hydra_config=True`.
        task: What a job runs.
    """
    context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks())
    return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
