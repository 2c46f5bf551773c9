import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
import transformers
from report_cases import captioning, vqa

from blip2_train.evaluation.report.results import program_versions, write_results
from blip2_train.system.atomic_write import write_atomically


def test_results_hold_scores_reasons_and_where_they_came_from(tmp_path: Path) -> None:
    when = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    path = write_results(tmp_path / "new" / "results.json", [captioning(), vqa()], created=when)
    result = json.loads(path.read_text("utf-8"))
    assert result["created"] == "2026-03-04T05:06:00+00:00"
    assert list(result["tasks"]) == ["nocaps", "vqav2"]
    nocaps = result["tasks"]["nocaps"]
    assert nocaps["scores"] == {"cider": 1.2144, "spice": None, "out-domain/cider": 0.8, "out-domain/bleu_4": 0.3819}
    assert nocaps["reasons"] == {"spice": "SPICE lacks its models"}
    assert nocaps["checkpoint"] == "outputs/caption/export" and nocaps["checkpoint_fingerprint"] == "ab" * 32
    assert nocaps["data_fingerprints"] == {"captions_val.json": "cd" * 32}
    assert nocaps["prompt"] == "a photo of" and nocaps["decoding"] == {"num_beams": 5, "length_penalty": 1.0}
    assert nocaps["examples"] == 9


def test_versions_are_those_that_run() -> None:
    result = program_versions()
    assert result["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert result["transformers"] == transformers.__version__
    assert {"python", "pycocoevalcap", "blip2_train"} <= set(result) and all(result.values())


def test_a_null_without_a_reason_and_a_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="spice is None, but no reason"):
        captioning(reasons={})
    with pytest.raises(ValueError, match="cider is nan; give None"):
        captioning(scores={"cider": float("nan")})
    with pytest.raises(ValueError, match="no score meteor"):
        captioning(headline="meteor")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_atomically(tmp_path / "results.json", "old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text("utf-8") == "old"
