from io import StringIO

import pytest
from rich.text import Text

from blip2_train.cli.part_sizes import parts_table
from blip2_train.cli.run_report import result_lines
from blip2_train.models.freezing import PartSize
from blip2_train.system.screen import make_console
from blip2_train.system.tables import NumbersTable


def printed(table: object, width: int) -> list[str]:
    file = StringIO()
    make_console(file=file, width=width).print(table)
    return file.getvalue().splitlines()


def wide() -> NumbersTable:
    table = NumbersTable(
        ["part of the set", *(f"metric {n}\n(%)" for n in range(9))], title="scores [bold]", note="x100"
    )
    table.add_row("out-domain, with a long name that folds", *(f"{n}.125 (12.{n})" for n in range(9)))
    table.add_row(Text("all", "bold"), *(f"{n}.5" for n in range(9)))
    return table


@pytest.mark.parametrize("width", [40, 70, 120, 300])
def test_no_number_is_cut_and_no_line_is_too_long(width: int) -> None:
    lines = printed(wide(), width)
    text = "\n".join(lines)
    assert all(f"{n}.125 (12.{n})" in text and f"{n}.5" in text for n in range(9)), text
    assert max(map(len, lines)) <= width and lines[0] == "scores [bold]" and lines[-1] == "x100"
    assert "…" not in text
    assert sum("part of the set" in line for line in lines) == {40: 9, 70: 3, 120: 2, 300: 1}[width], text


def test_the_tables_of_a_run_fit_70_columns() -> None:
    parts = [
        PartSize(
            name="a_language_model_with_a_name", parameters=12_100_000_000, trainable=0, weight_bytes=2**34,
            training_bytes=2**36,
        )
    ]  # fmt: skip
    lines = printed(parts_table(parts), 70)
    assert sum("12,100,000,000" in line for line in lines) == 2 and max(map(len, lines)) <= 70
    results = {"steps": 10.0, "samples_per_second": 2.0, "seconds": 5.0, "val/pairs": 1000.0}
    results |= {
        "train/loss_itc": 1.234,
        "val/loss_itc": 2.345,
        "chance/val_loss_itc": 6.908,
        "val/image_to_text_r1": 5.0,
    }
    table, *lines = result_lines(results, {"loss_itc": 4.159}, "", {})
    text = "\n".join(printed(table, 70))
    assert all(number in text for number in ("1.234", "2.345", "4.159 / 6.908", "5.0", "0.1"))
    assert lines == ["10 steps, 2 samples/s, 5 s"] and "step" not in text
    assert result_lines(results | {"seconds_since_step": 3.0}, {}, "", {})[1].endswith(" s since step 3")
    earlier, *lines = result_lines(results | {"exported_step": 4.0, "samples_per_second": 0.25}, {}, "", {})
    assert "held-out, step 4" in "\n".join(printed(earlier, 70)) and lines == ["10 steps, 0.25 samples/s, 5 s"]


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        NumbersTable(["a", "b"]).add_row("1")
