"""Keys that nothing reads lead to the one that was meant."""

from __future__ import annotations

import re

import pytest

from blip2_train.config.compose import compose
from blip2_train.config.strict_keys import ELSEWHERE
from blip2_train.errors import ConfigError


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_of_other_programs_lead_to_ours(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown key '{name}': did you mean '{re.escape(ELSEWHERE[name])}'\?"):
        compose(["experiment=demo_stage1", f"{name}=1"])


def test_the_name_of_the_image_column_in_predict_leads_to_that_of_data() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'data.image_column': did you mean 'data.picture_column'\?"):
        compose(["experiment=demo_stage1", "data=captions", "data.source=mine.csv", "data.image_column=file"])
