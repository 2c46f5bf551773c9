"""Each command and option that needs an extra says so in one line, with this project's extra and its bound."""

from __future__ import annotations

import importlib.abc
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest
from fsspec.registry import _registry
from real_parts.command import main as real_parts
from shard_files import write_shards, write_tokenizer
from tiny_run import arguments

from blip2_train.cli.app import main as app
from blip2_train.cli.capfilt.command import main as capfilt
from blip2_train.cli.describe import main as describe
from blip2_train.cli.doctor.command import main as doctor
from blip2_train.cli.make_shards import main as make_shards
from blip2_train.cli.predict.command import main as predict
from blip2_train.cli.terminal import run_command
from blip2_train.cli.train.command import main as train
from blip2_train.data.storage import drivers
from blip2_train.errors import ConfigError
from blip2_train.models.adapters import peft
from blip2_train.models.quantization import bitsandbytes
from blip2_train.system import extras
from blip2_train.system.extras import EXTRAS, import_extra, install

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
STAGE_2 = ("experiment=demo_stage2_opt", "init_from=null", "steps=2", "trainer=cpu", "data.num_workers=0")
NEED = {
    "training with int8": ("bitsandbytes", train, [*STAGE_2, "model.language.quantization=int8"]),
    "training with int4": ("bitsandbytes", train, [*STAGE_2, "model.language.quantization=int4"]),
    "describing int8": ("bitsandbytes", describe, [*STAGE_2, "model.language.quantization=int8"]),
    "doctor, int8": (
        "bitsandbytes",
        doctor,
        [*STAGE_2, "data=shards", "data.source={folder}/shards", "model.language.quantization=int8", "measure=0"],
    ),
    "training with a tower in int8": (
        "torchao",
        train,
        ["{run}", "data.source={folder}/shards", "trainer.vision_quantization=int8"],
    ),
    "training with adapters": ("peft", train, [*STAGE_2, "peft=lora"]),
    "sweep by submitit": (
        "hydra_plugins.hydra_submitit_launcher",
        train,
        ["--multirun", "hydra/launcher=submitit_local", "experiment=demo_stage1", "seed=1,2"],
    ),
    "training on Parquet files": ("pyarrow", train, ["{run}", "data.source={folder}/some.parquet"]),
    "shards of Parquet files": ("pyarrow", make_shards, ["source={folder}/some.parquet", "output={folder}/out"]),
    "training from S3": ("s3fs", train, ["{run}", "data.source=s3://bucket/a.tar"]),
    "shards on S3": ("s3fs", make_shards, ["source=s3://bucket/a.tar", "output={folder}/out"]),
    "shards with Ray": ("ray", make_shards, ["source={folder}/shards", "output={folder}/out", "engine=ray"]),
    "scorer of OpenCLIP": (
        "open_clip",
        capfilt,
        ["source={folder}/shards", "output={folder}/out", "captioner=blip:x", "scorer=open_clip:ViT-B-32/openai"],
    ),
    "search by FAISS": ("faiss", predict, ["search", "--model", "x", "--index", "x.npz", "--faiss", "Flat", "a cat"]),
    "real weights, the language model": ("gguf", real_parts, ["{folder}/parts"]),
    "real weights, the tower": ("onnx", real_parts, ["{folder}/parts"]),
    "the web app": ("gradio", app, ["--port", "0", "--outputs", "{folder}"]),
}
"""By what is asked for: the module that is hidden, the command, and its arguments."""


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """As if the package of a module were not installed, for everyone who imports or looks for it."""

    class Others(importlib.abc.MetaPathFinder):
        find_distributions = staticmethod(PathFinder.find_distributions)

        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            return None if f"{name}.".startswith(f"{module}.") else PathFinder.find_spec(name, path, target)

    finders, loaded = sys.meta_path[:], sys.modules.copy()
    for name in loaded:
        if f"{name}.".startswith(f"{module}."):
            del sys.modules[name]
    registered = _registry  # what was asked for before is not imported again
    known = dict(registered)
    for name, driver in known.items():
        if f"{driver.__module__}.".startswith(f"{module}."):
            del registered[name]
    sys.meta_path[:] = [*(finder for finder in finders if finder is not PathFinder), Others()]
    for cached in (bitsandbytes, peft, drivers._connected):
        cached.cache_clear()
    try:
        yield
    finally:
        sys.meta_path[:] = finders
        sys.modules.update(loaded)
        registered.update(known)
        for cached in (bitsandbytes, peft, drivers._connected):
            cached.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "shards", [4])
    write_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "some.parquet").write_bytes(b"PAR1 not much more")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("module", "command", "requests"), NEED.values(), ids=NEED.keys())
def test_what_needs_an_extra_names_it(
    module: str,
    command: Callable[[list[str]], None],
    requests: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [part.format(folder=folder, run="{run}") for part in requests]
    given = [one for part in given for one in (arguments(folder / "runs") if part == "{run}" else [part])]
    with hidden(module):
        assert run_command(command, given) == 2
    errors = capsys.readouterr().err
    lines = [line for line in errors.splitlines() if line.startswith(("error: ", "problem: "))]
    assert any(install(module) in line for line in lines), errors
    assert "Traceback" not in errors and len(errors.splitlines()) <= 4, errors


def test_every_extra_has_a_case_above() -> None:
    assert {module for module, _, _ in NEED.values()} == set(EXTRAS)


@pytest.mark.parametrize("module", EXTRAS)
def test_the_hint_has_the_extra_and_the_bound_of_the_project(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, extra = EXTRAS[module]
    (bound,) = [
        one for one in PROJECT["optional-dependencies"][extra] if re.match(rf"{re.escape(package)}\b", one) is not None
    ]
    listed = [f'{one}; extra == "{extra}"' for one in PROJECT["optional-dependencies"][extra]]
    monkeypatch.setattr(extras.metadata, "requires", lambda _: ["torch>=2", *listed])
    assert install(module) == f'pip install "{PROJECT["name"]}[{extra}]" ({bound})'


def test_a_package_that_is_there_and_broken_tells_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peft.py").write_text("import no_such_module_of_peft\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "peft", raising=False)
    with pytest.raises(ConfigError, match=r"cannot be imported .*No module named 'no_such_module_of_peft'"):
        import_extra("peft", "training with adapters")
