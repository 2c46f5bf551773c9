"""A wheel and a source archive hold what a checkout has: modules, configuration files, assets, licences, pages."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import blip2_train

PAPERS = ("LICENSE", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml")


@pytest.fixture(scope="module")
def source(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packed, without what a checkout may hold besides."""
    source = tmp_path_factory.mktemp("source")
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("blip2_train", "configs", "docs"):
        shutil.copytree(root / name, source / name, ignore=skip)
    for name in (*PAPERS, ".gitignore"):
        shutil.copy(root / name, source / name)
    return source


def built(source: Path, target: str) -> Path:
    """The archive that the build makes: `wheel` or `sdist`."""
    folder = source.with_name(f"{source.name}_{target}")
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(source: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(built(source, "wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(path).decode("utf-8"))


@pytest.mark.slow
def test_wheel_is_complete(source: Path, wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    modules = {str(path.relative_to(source)) for path in (source / "blip2_train").rglob("*") if path.is_file()}
    settings = {f"blip2_train/{path.relative_to(source)}" for path in (source / "configs").rglob("*.yaml")}
    assert len(settings) > 20
    assert (modules | settings) - packed == set()
    assert {name for name in packed if name.endswith("entry_points.txt")}


@pytest.mark.slow
def test_wheel_is_typed_and_licensed(wheel: zipfile.ZipFile, metadata: Message) -> None:
    packed = wheel.namelist()
    assert "blip2_train/py.typed" in packed
    assert [name for name in packed if name.endswith(".dist-info/licenses/LICENSE")]
    assert metadata["License-Expression"] == "MIT AND Apache-2.0 AND CC-BY-4.0"
    assert metadata["Author"] == "the blip2_train contributors"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_wheel_has_the_package_alone(wheel: zipfile.ZipFile) -> None:
    rooms = {name.split("/")[0] for name in wheel.namelist()}
    assert {room for room in rooms if not room.endswith(".dist-info")} == {"blip2_train"}


@pytest.mark.slow
def test_source_archive_has_the_pages(source: Path) -> None:
    with tarfile.open(built(source, "sdist")) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    pages = {str(path.relative_to(source)) for path in (source / "docs").rglob("*.md")}
    assert pages and pages | set(PAPERS) <= packed


def test_citation_is_of_this_version(root: Path) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == blip2_train.__version__
    assert citation["preferred-citation"]["url"] == "https://arxiv.org/abs/2301.12597"


def test_hosted_runners_call_the_script_of_all_others(root: Path) -> None:
    """One script decides what is checked; the workflow only calls it."""
    workflow = yaml.safe_load((root / ".github" / "workflows" / "tests.yml").read_text("utf-8"))
    steps = workflow["jobs"]["tests"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]
    assert "run_scripts/test.sh" in (root / ".ci" / "run").read_text("utf-8")
