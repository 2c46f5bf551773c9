"""The cleaning of texts, and which can be used."""

import pytest

from blip2_train.data.order import stable_seed
from blip2_train.data.printable_names import printable_name
from blip2_train.data.rejections import UnusableSample
from blip2_train.data.text_cleaning import clean_caption, clean_question, is_unicode, usable_texts, without_broken_marks


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("A Cat.", "a cat"),
        ('He said: "go!" (now)*#;~', "he said go now"),
        ("isn't, well-made? yes/no 12", "isn't, well-made? yes/no 12"),
        ("a cat\n", "a cat"),
        ("  two   blanks \n\n", "two blanks"),
        ("a\u2028\u2028b", "a b"),
        ("<PERSON> at https://x.org/a.jpg 🎉", "<person> at https //x org/a jpg 🎉"),
        ("...!!!", ""),
        ("", ""),
    ],
)
def test_caption_cleaning(raw: str, cleaned: str) -> None:
    assert clean_caption(raw) == cleaned


def test_captions_are_cut_to_fifty_words() -> None:
    words = [f"w{number}" for number in range(60)]
    assert clean_caption(" ".join(words)) == " ".join(words[:50])
    assert clean_caption(" ".join(words), max_words=2) == "w0 w1"


def test_question_marks_are_removed_not_blanked() -> None:
    assert clean_question('What "is" (this): a U.S.A. flag?  ') == "what is this a usa flag?"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a \ud83d cat", "text is not Unicode"),
        ("\udce9", "text is not Unicode"),
        ("...", "empty caption"),
        ("", "empty caption"),
        ("\x00\x07", "empty caption"),
        ("\u200b\u200d\ufeff", "empty caption"),
    ],
)
def test_a_text_that_cannot_be_used_has_a_reason(text: str, reason: str) -> None:
    with pytest.raises(UnusableSample) as caught:
        usable_texts([text, ""], clean_caption)
    assert caught.value.reason == reason
    assert usable_texts(["a cat", text, "\x01 dog \U0001f697"], clean_caption) == [
        (0, "a cat"),
        (2, "\x01 dog \U0001f697"),
    ]


def test_what_is_scored_loses_its_broken_marks_only() -> None:
    assert without_broken_marks("a \ud83d cat \U0001f431\udc80") == "a  cat \U0001f431"
    assert is_unicode("caf\xe9 \U0001f431") and not is_unicode("\udfff")


def test_names_that_are_no_utf8_are_printable_and_hashed() -> None:
    name = b"caf\xe9\x92005.jpg".decode(errors="surrogateescape")
    assert printable_name(name) == r"caf\udce9\udc92005.jpg" and printable_name("caf\xe9 \u6771") == "caf\xe9 \u6771"
    assert 0 <= stable_seed("s", name) < 2**63 and stable_seed("s", name) != stable_seed("s", "caf005.jpg")
    assert stable_seed("source", "00000", "000000012") == 6823396438994090213  # as ever: orders and identities stay
