import pytest

from blip2_train.data.text import clean_caption, clean_question


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
