"""Two launchers of one process each, which meet on loopback as two machines do, are one launcher of two processes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from training_process import TORCHRUN, assert_same_run, begin, start, write_data

RUN = ("trainer=ddp_cpu", "data.num_workers=0")


@pytest.mark.slow
@pytest.mark.usefixtures("warm_python")
def test_two_nodes_train_to_the_losses_of_one(tmp_path: Path) -> None:
    workspace = write_data(tmp_path)
    start(workspace / "one", *RUN, processes=2, other=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"--rdzv-endpoint=127.0.0.1:{free.getsockname()[1]}"
    meeting = (*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=two", address)
    run_dir = f"paths.run_dir={workspace / 'two' / 'demo_stage1' / 'run'}"
    settings = (*RUN, "trainer.devices=1", "trainer.num_nodes=2", run_dir)
    nodes = [begin(workspace / "two", *settings, launcher=meeting) for _ in range(2)]
    printed = ["".join(node.communicate(timeout=240)) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], printed
    assert_same_run(workspace / "one", workspace / "two", ranks=2)
