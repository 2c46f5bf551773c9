"""A page that other machines reach opens only what was named when it was started."""

from __future__ import annotations

import pytest

from blip2_train.app.access import Access
from blip2_train.errors import ConfigError


def test_a_page_of_this_machine_opens_anything() -> None:
    assert Access(everything=True).check("folder", " ~/photos ") == "~/photos"


def test_a_page_of_others_opens_what_was_named() -> None:
    access = Access(everything=False, named=frozenset({"photos"}))
    assert access.check("folder", "photos") == "photos"
    for name in ("/etc", "photos/../..", "photos/"):
        with pytest.raises(ConfigError, match="was not named when this app was started"):
            access.check("folder", name)


def test_nothing_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match="no model is named; choose or type one"):
        Access(everything=True).check("model", "  ")
