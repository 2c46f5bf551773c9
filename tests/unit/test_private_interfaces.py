"""Private interfaces of other packages are used where this table says, and each place names what it was tried with."""

from __future__ import annotations

import ast
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "blip2_train"
PRIVATE = {
    "checkpoints/convert/huggingface_config.py": {"_name_or_path"},
    "checkpoints/convert/paddle.py": {"_name_or_path"},
    "config/hydra_private.py": {"hydra._internal.callbacks"},
    "data/batches/image_inputs.py": {"_C", "_disabled_torch_function_impl"},
    "data/storage/remote.py": {"_strip_protocol"},
    "evaluation/conversation.py": {"_version"},
    "models/adapters.py": {"_register_custom_module"},
    "models/quantized_loading.py": {"transformers.core_model_loading"},
    "models/step_memory.py": {"torch.utils._python_dispatch", "torch.utils._pytree"},
    "models/timm_without_wandb.py": {"sys.modules['wandb']"},
    "training/compiling.py": {"_dynamo"},
    "training/launch.py": {"_accelerator_connector"},
    "training/planned_memory.py": {"_scaled_dot_product_efficient_attention", "torch._subclasses.fake_tensor"},
    "training/sharding.py": {"_is_fsdp_managed_module", "_no_split_modules"},
}
TRIED = {
    "config/hydra_private.py": "hydra-core",
    "data/batches/image_inputs.py": "torch",
    "evaluation/conversation.py": "torch",
    "models/adapters.py": "peft",
    "models/prompt_cache.py": "transformers",
    "models/quantized_loading.py": "transformers",
    "models/step_memory.py": "torch",
    "models/timm_without_wandb.py": "timm",
    "training/compiling.py": "torch",
    "training/launch.py": "lightning",
    "training/planned_memory.py": "torch",
    "training/sharding.py": "transformers",
}
"""Packages whose versions the first lines of a file name."""
ALLOWED = {"_exit", "_target_"}
"""Documented, in spite of their names: `os._exit`, and the key of configurations."""


def private_interfaces(text: str) -> set[str]:
    tree = ast.parse(text)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _of_itself(node)}
    result = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _of_itself(node):
            result |= {node.attr} - own - ALLOWED
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            if any(map(_is_private, parts)) or node.module.endswith("core_model_loading"):
                result.add(node.module)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            result |= {target for target in (ast.unparse(node),) if target.startswith("sys.modules[")}
    return result


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _of_itself(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def test_the_search_sees_private_interfaces() -> None:
    text = "from a._b import c\nimport sys\nsys.modules['d'] = None\nx._e()\nself._f = 1\ny._f\nos._exit(1)\n"
    assert private_interfaces(text) == {"a._b", "sys.modules['d']", "_e"}


@pytest.mark.slow
def test_they_are_used_where_the_table_states() -> None:
    files = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in ROOT.rglob("*.py")}
    assert {name: result for name, text in files.items() if (result := private_interfaces(text))} == PRIVATE


@pytest.mark.parametrize("name", TRIED)
def test_the_location_names_the_version_that_is_installed(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / name).read_text("utf-8"))) or ""
    tried = " ".join(docstring.partition("Tried with ")[2].split())
    assert f"{TRIED[name]} " in tried
    if version(TRIED[name]) not in tried:
        pytest.skip(f"{TRIED[name]} {version(TRIED[name])} is another version than {name} was tried with")
