"""A Ray on this machine for all tests that need one, started as `engine=ray` does; see the fixture `local_ray`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

_REACH = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")


@dataclass(frozen=True)
class LocalRay:
    """What tests know of it."""

    address: str
    folder: str
    pid: int
    environment: dict[str, str]
    """What a process needs in order to reach it, before it imports Ray."""


@contextmanager
def started(workers: int) -> Iterator[LocalRay]:
    """Start it in a process of its own; nothing of it is left afterwards."""
    command = [sys.executable, __file__, str(workers)]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]])  # workers import `ray_work`
    environment = os.environ | {"PYTHONPATH": path}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdin is not None and process.stdout is not None
    try:
        ray = LocalRay(**json.loads(process.stdout.readline()))
        os.environ.update(ray.environment)
        yield ray
    finally:
        for name in _REACH:
            os.environ.pop(name, None)
        process.stdin.close()
        process.wait(60)
    assert process.returncode == 0 and not Path(ray.folder).exists()


def _main(workers: int) -> None:
    from blip2_train.data.prepare.ray_connection import connected

    with connected(None, workers) as ray:
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        local = LocalRay(
            address=ray.get_runtime_context().gcs_address,
            folder=str(session.parent),
            pid=os.getpid(),
            environment={name: os.environ[name] for name in _REACH},
        )
        print(json.dumps(asdict(local)), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
