"""Images and texts become what a model reads, and what cannot be read is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blip2_train.data.batches.image_inputs import listed, open_image
from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
from blip2_train.data.batches.processor import Processor
from blip2_train.data.batches.qformer_tokenizer import load_qformer_tokenizer
from blip2_train.data.batches.transforms import CLIP_MEAN, CLIP_STD
from blip2_train.errors import ConfigError, ShardError

SIZE = 20


def photo(mode: str = "RGB", size: tuple[int, int] = (30, 17), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="module")
def processor(root: Path) -> Processor:
    assets = root / "blip2_train/assets/demo"
    return Processor(
        image_size=SIZE,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        max_text_length=8,
        text_tokenizer=load_qformer_tokenizer(str(assets / "bert")),
        language_tokenizer=LanguageTokenizer(
            str(assets / "opt"), padding_side="left", encoder_decoder=False, end_token="\n"
        ),
    )


def test_its_repr_is_one_line_of_what_it_does(processor: Processor) -> None:
    shown = repr(processor)
    assert shown.startswith("Processor(image_size=20, max_text_length=8, ") and "tokenizers=[" in shown
    assert "LanguageTokenizer" in shown and len(shown) < 250 and "\n" not in shown


def test_a_file_a_image_and_its_pixel_values_are_the_same(processor: Processor, tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    pixels = processor.image(photo())
    assert pixels.shape == (3, SIZE, SIZE) and pixels.dtype == torch.float32
    everything = processor.images([tmp_path / "a.png", str(tmp_path / "a.png"), photo(), pixels])
    assert all(torch.equal(row, pixels) for row in everything)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_every_mode_is_read(processor: Processor, mode: str) -> None:
    assert processor.image(photo("I").convert(mode) if mode == "I;16" else photo(mode)).isfinite().all()


def test_images_are_turned_by_their_exif_orientation(processor: Processor, tmp_path: Path) -> None:
    turned = photo()
    turned.getexif()[0x0112] = 3  # upside down
    turned.save(tmp_path / "a.png", exif=turned.getexif())
    expected = processor.image(photo().rotate(180))
    assert torch.equal(processor.image(tmp_path / "a.png"), expected)
    assert torch.equal(processor.image(Image.open(tmp_path / "a.png")), expected)


def test_what_is_no_image_is_named(processor: Processor, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    photo().save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    for name, reason in (("text.jpg", "not a JPEG"), ("cut.png", "unreadable"), ("gone.png", "No such file")):
        with pytest.raises(ShardError, match=f"{name} is no image that can be read .*{reason}") as caught:
            processor.images([tmp_path / "whole.png", tmp_path / name])
        assert "\n" not in str(caught.value) and "('" not in str(caught.value)
    with pytest.raises(ShardError, match=r"no image that can be read \(Is a directory"):
        processor.image(tmp_path)


def test_a_image_that_breaks_while_it_is_read_is_named(tmp_path: Path) -> None:
    photo().save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(ShardError, match=r"cut\.png is no image"):
        open_image(Image.open(tmp_path / "cut.png"))


def test_a_single_image_is_a_list_of_one() -> None:
    one = photo()
    assert listed("a.png") == ["a.png"] and listed(Path("a")) == [Path("a")] and listed(one) == [one]
    assert len(listed(torch.zeros(3, 4, 4))) == 1 and len(listed(torch.zeros(2, 3, 4, 4))) == 2
    assert listed(str(n) for n in range(3)) == ["0", "1", "2"]


def test_texts_are_cleaned_and_cut_as_in_training(processor: Processor) -> None:
    ids, mask = processor.texts(['A "red" apple!', "a red apple", "one two three four five six seven eight nine ten"])
    assert torch.equal(ids[0], ids[1]) and torch.equal(mask[0], mask[1])
    assert ids.shape == mask.shape == (3, 8) and mask.dtype == torch.bool
    assert mask[2].all() and ids[2, -1] == processor.text_tokenizer.sep_token_id


@pytest.mark.parametrize("text", ["", "  ", "!!!"])
def test_a_text_of_which_nothing_is_left_is_refused(processor: Processor, text: str) -> None:
    with pytest.raises(ConfigError, match="is empty once cleaned"):
        processor.texts(["a cat", text])


def test_prompts_are_padded_on_the_left_and_never_cut(processor: Processor) -> None:
    long = " ".join(["a red apple"] * 30)
    ids, mask = processor.prompts(["a", long])
    tokenizer = processor.language_tokenizer
    assert tokenizer is not None
    assert ids[1].tolist() == tokenizer.prompt_ids(long) and mask[1].all()
    assert ids[0][mask[0]].tolist() == tokenizer.prompt_ids("a") and not mask[0, 0]


def test_the_description_makes_it_again(processor: Processor) -> None:
    again = Processor(**processor.describe())
    assert again.describe() == processor.describe()
    assert torch.equal(again.image(photo()), processor.image(photo()))


def test_texts_that_are_not_unicode_are_one_line(processor: Processor) -> None:
    """As a command line gives them whose bytes are not UTF-8."""
    for read in (processor.texts, processor.prompts):
        with pytest.raises(ConfigError, match=r"text 'a \\udce9' is not Unicode .*; write it again in UTF-8"):
            read(["a cat", "a \udce9"])
    with pytest.raises(ConfigError, match="is empty once cleaned"):
        processor.texts(["\u200b"])
