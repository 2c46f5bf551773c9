from pathlib import Path

from blip2_train.evaluation.run_metrics import curve, read_metrics
from blip2_train.training.run_log import RunCSVLogger


def test_rows_survive_a_resume_and_new_columns(tmp_path: Path) -> None:
    log = RunCSVLogger(str(tmp_path / "run"))
    log.log_metrics({"train/loss_itc": 3.0}, step=1)
    log.log_metrics({"val/loss_itc": 2.5, "val/text_to_image_r1": 10.0}, step=1)
    log.log_metrics({"train/loss_itc": 2.0}, step=2)
    log.log_metrics({"train/loss_itc": 1.0}, step=3)
    resumed = RunCSVLogger(str(tmp_path / "run"))
    assert len(read_metrics(tmp_path / "run" / "metrics.csv")) == 4, "opening a log must not delete it"
    resumed.keep_until(2)
    resumed.log_metrics({"train/loss_itc": 0.5, "train/lr": 0.1}, step=3)
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert curve(rows, "train/loss_itc") == ([1, 2, 3], [3.0, 2.0, 0.5])
    assert curve(rows, "val/loss_itc") == ([1], [2.5])


def test_a_run_that_begins_anew_drops_the_rows_of_its_earlier_life(tmp_path: Path) -> None:
    RunCSVLogger(str(tmp_path)).log_metrics({"train/loss": 3.0}, step=1)
    again = RunCSVLogger(str(tmp_path))
    again.keep_until(0)
    again.log_metrics({"train/loss": 2.0}, step=1)
    assert curve(read_metrics(tmp_path / "metrics.csv"), "train/loss") == ([1], [2.0])


def test_a_row_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss_itc\n1,3.0\n2,2.0,9\nx")
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == ["1"]
