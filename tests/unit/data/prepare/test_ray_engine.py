"""Workers of Ray do what processes of this machine do, and what is wrong with Ray is said in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from local_ray import LocalRay
from ray_work import Costly, Killed, Unreadable, refuse_three, working_folder

from blip2_train.data.prepare import ray_connection
from blip2_train.data.prepare.engine import open_engine
from blip2_train.data.prepare.ray_engine import RayEngine, _capacity
from blip2_train.errors import ConfigError, ShardError


@pytest.fixture(scope="module")
def engine(local_ray: LocalRay) -> Iterator[RayEngine]:
    with RayEngine(2, address=local_ray.address, cpus_per_worker=0.5) as engine:
        yield engine


def test_results_come_in_order_and_few_tasks_are_taken_ahead(engine: RayEngine) -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for task in count(-20):
            taken.append(task)
            yield task

    results = engine(abs, tasks())
    outputs = []
    for _ in range(40):
        outputs.append(next(results))
        assert len(taken) - len(outputs) < 3 * 2
    results.close()  # type: ignore[attr-defined]
    assert outputs == [abs(task) for task in range(-20, 20)]
    assert list(engine(abs, [])) == []


def test_a_worker_sets_up_its_work_once(engine: RayEngine) -> None:
    results, seen = engine(Costly(), count()), set()
    for index, (task, *process_and_state) in enumerate(results):  # the second worker may begin late
        assert task == index
        seen.add(tuple(process_and_state))
        if index >= 30 and len({process for process, _ in seen}) == 2:
            break
    results.close()  # type: ignore[attr-defined]
    assert len(seen) == 2
    assert os.getpid() not in {process for process, _ in seen}


def test_errors_are_those_of_the_task(engine: RayEngine) -> None:
    results = engine(refuse_three, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ShardError, match=r"^three cannot be read$") as caught:
        next(results)
    assert type(caught.value) is ShardError and caught.value.__suppress_context__
    with pytest.raises(FileNotFoundError) as missing:
        list(engine(refuse_three, [4]))
    assert (missing.value.filename, missing.value.strerror) == ("four", "No such file or directory")


def test_a_lost_worker_is_replaced_but_not_for_ever(engine: RayEngine, tmp_path: Path) -> None:
    assert list(engine(Killed(tmp_path / "killed"), range(8))) == list(range(8))
    assert (tmp_path / "killed").exists()
    with pytest.raises(ShardError, match=r"lost twice at the same task.*fewer workers"):
        list(engine(Killed(None), range(8)))


def test_workers_are_where_the_command_was_given_and_see_the_files(
    engine: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(engine(working_folder, [0])) == [os.getcwd()]
    with RayEngine(1, cpus_per_worker=0.1, shared=[str(tmp_path / "later")]) as other:
        assert list(other(abs, [-1])) == [1]
        monkeypatch.setattr("blip2_train.data.prepare.ray_engine.exists", lambda path: True)  # here, by now
        with pytest.raises(ConfigError, match=r"of the Ray cluster has no .*later; inputs and outputs must be in"):
            list(other(abs, [1]))
    monkeypatch.setattr("PIL.__version__", "1.2")
    with (
        RayEngine(1, cpus_per_worker=0.1) as other,
        pytest.raises(ConfigError, match=r"has Pillow [\d.]+, the machine of the command 1\.2; install the same"),
    ):
        list(other(abs, [1]))
    assert list(engine(abs, [-1])) == [1]


def test_a_worker_that_cannot_begin_is_not_called_lost(engine: RayEngine) -> None:
    assert list(engine(abs, [-1])) == [1]
    with RayEngine(1, cpus_per_worker=0.1) as other:
        other._environment = (Unreadable(), *other._environment[1:])  # type: ignore[assignment]
        with pytest.raises(ConfigError, match=r"no worker can start on this Ray: .*no number") as caught:
            list(other(abs, [1]))
    assert "\n" not in str(caught.value)


def test_room_is_what_the_scarcest_resource_leaves() -> None:
    resources = {"CPU": 16.0, "GPU": 3.0, "memory": 1.0}
    assert _capacity(resources, {"CPU": 2, "GPU": 0}) == 8
    assert _capacity(resources, {"CPU": 2, "GPU": 0.5}) == 6 and _capacity(resources, {"CPU": 0.1, "GPU": 0.1}) == 30
    assert _capacity(resources, {"CPU": 0, "GPU": 4}) == 0
    assert _capacity({"CPU": 4.0}, {"CPU": 1, "GPU": 1}) == 0


def test_a_cluster_without_what_a_worker_needs_is_refused(engine: RayEngine) -> None:
    assert list(engine(abs, [-1])) == [1]
    with (
        RayEngine(address="auto", gpus_per_worker=1) as greedy,
        pytest.raises(ConfigError, match=r"does not have what one worker needs \(1 CPU and 1 GPU\)"),
    ):
        list(greedy(abs, [1]))


def test_a_ray_of_its_own_is_quiet_and_private(engine: RayEngine, local_ray: LocalRay) -> None:
    psutil = pytest.importorskip("psutil")
    assert list(engine(abs, [-1])) == [1]
    started = psutil.Process(local_ray.pid)
    pids = {local_ray.pid, *(process.pid for process in started.children(recursive=True))}
    listening = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in pids]
    assert listening and {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    assert {process.environ().get("RAY_USAGE_STATS_ENABLED") for process in started.children()} == {"0"}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere", "ray_address=nowhere: expected auto, <host>:<port> or ray://<host>:<port>"),
        ("127.0.0.1:1", "ray_address=127.0.0.1:1: no server answers there .*Connection refused"),
        ("ray://127.0.0.1:1", "ray_address=ray://127.0.0.1:1: no server answers there"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ray_connection._check_address(address)


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with open_engine("ray", 1) as engine, pytest.raises(ConfigError, match=r'pip install "blip2_train\[data\]"'):
        list(engine(abs, [1]))
    with pytest.raises(ConfigError, match="ray_address=auto is for engine=ray"), open_engine(ray_address="auto"):
        pass


def test_the_folder_of_its_sockets_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 20)))
    with ray_connection._short_folder() as folder:
        assert len(folder) <= 40 and Path(folder).is_dir()
    assert not Path(folder).exists()


def test_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(ray_connection, "_LONGEST_BASE", 1000)
    with ray_connection._short_folder() as living:
        left_over = tmp_path / "blip2-ray-killed"
        (left_over / "session").mkdir(parents=True)
        with ray_connection._short_folder():
            assert Path(living).is_dir() and not left_over.exists()
    assert list(tmp_path.iterdir()) == []
