"""The README's program runs as it stands, on the image that it names; only the training is shorter here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from demo_exports import write_exports


@pytest.mark.slow
def test_the_program_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exports = write_exports(tmp_path / "exports")
    for recipe, name in (("demo_stage1", "stage1"), ("demo_stage2_opt", "opt")):
        shutil.copytree(exports[name], tmp_path / "outputs" / recipe / "run" / "export")
    shutil.copytree(root / "docs" / "figures", tmp_path / "docs" / "figures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (program,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text("utf-8"), re.DOTALL)
    assert program.count('"steps=200"') == 1
    capsys.readouterr()
    exec(compile(program.replace('"steps=200"', '"debug=fast", "trainer=cpu"'), "README.md", "exec"), {})
    caption, answer, scores, *_, steps = capsys.readouterr().out.splitlines()  # between them training reports
    assert caption.startswith("['") and answer.startswith("['") and scores.count("tensor([[") == 2
    assert float(steps) == 3
