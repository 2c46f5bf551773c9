"""No network, no services, one thread and a fixed seed, here and in every process a test starts."""

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_INTERPRETER = str(Path(__file__).parent / "support" / "interpreter")
_ROOT = str(Path(__file__).parent.parent)
sys.path.insert(0, _INTERPRETER)
sys.modules.pop("sitecustomize", None)
import sitecustomize  # noqa: E402, F401  (blocks the network in this process)

os.environ.update(
    PYTHONPATH=os.pathsep.join(p for p in (_INTERPRETER, os.environ.get("PYTHONPATH", "")) if p),
    HF_HUB_OFFLINE="1",
    WANDB_MODE="offline",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.pop("BLIP2_TRACEBACK", None)

import pytest  # noqa: E402
import warm_process  # noqa: E402
from composed_once import compose_each_choice_once, is_test_of_composing, real_composition  # noqa: E402
from local_ray import LocalRay, started  # noqa: E402

from blip2_train.data.prepare.engine import cores  # noqa: E402

collect_ignore = ["fault_test"]  # its modules add rows to one table: those that look for doctests would add them again

compose_each_choice_once()
warm_process.serve_until_the_end()


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, as many tests wait for processes that they start."""
    return cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long time limits come first, so that no worker is left with one at the end."""
    limits: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, 0), limit.args[0] if limit else 0)
    items.sort(key=lambda item: -limits[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escape names that are not UTF-8 in reports of failed tests: no channel takes them, and all workers would end."""
    return _writable((yield))


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_writable(key): _writable(inner) for key, inner in value.items()}
    return type(value)(map(_writable, value)) if type(value) in (list, tuple) else value


@pytest.fixture(autouse=True)
def fixed_seed() -> Iterator[None]:
    import torch  # not above: the process that hands tests to the workers needs none of it

    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Tests of composing see the real composition, in their fixtures, too; all others one that is kept."""
    with real_composition() if is_test_of_composing(item.path) else nullcontext():
        return (yield)


@pytest.fixture
def warm_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started with `sys.executable`, here and below, is forked from a process that has loaded everything."""
    monkeypatch.setattr(sys, "executable", warm_process.warm_python())
    monkeypatch.setenv(warm_process.PYTHON, warm_process.warm_python())


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(_ROOT)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[LocalRay]:
    """One Ray with room for two workers, for all tests: it takes seconds to start."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    with started(workers=2) as ray:
        yield ray
