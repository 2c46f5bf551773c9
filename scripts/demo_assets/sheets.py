"""Writes the sprite sheets, the names file and the licences from the unpacked emoji packages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from blip2_train.data.emoji_scenes.concepts import SHEET_COLUMNS, SPRITE_SIZE, STYLES
from blip2_train.errors import ConfigError
from demo_assets.concept_list import IMAGES, PLURALS, SYNONYMS

NOVEL_SHARE = 0.15
NOVEL_SEED = 2

ATTRIBUTION = """Images of the emoji scenes

sprites/google.png: Noto Emoji, Copyright Google LLC (https://github.com/googlefonts/noto-emoji), images licensed under
the Apache License, Version 2.0 (LICENSE-Apache-2.0.txt, http://www.apache.org/licenses/LICENSE-2.0). Taken from the
npm package emoji-datasource-google 16.0.0. Changes: chosen images put together on one sheet.

sprites/twitter.png: Twemoji, Copyright Twitter, Inc and other contributors (https://github.com/jdecked/twemoji,
formerly https://github.com/twitter/twemoji), graphics licensed under Creative Commons Attribution 4.0 International
(https://creativecommons.org/licenses/by/4.0/). Taken from the npm package emoji-datasource-twitter 16.0.0. Changes:
chosen images put together on one sheet. The scenes that the demo renders from them, and thus parts of them, fall
under the same terms: name this source when you pass them on.

sprites/names.json: names chosen from emoji-data (Copyright Cal Henderson, MIT licence, LICENSE-emoji-data.txt) and
emojibase-data 17.0.0 (Copyright Miles Johnson, MIT licence, LICENSE-emojibase.txt).

vision/, bert/, opt/, t5/: trained by this project (scripts/make_demo_assets.py) on the images above, or on sentences
of the project's own grammar.
"""


def plural_of(name: str) -> str:
    """The plural: `berries`, `foxes`, `palm trees`, or the entry of the list of exceptions."""
    if name in PLURALS:
        return PLURALS[name]
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith(("s", "x", "z", "ch", "sh")) else "s")


def parse_images(text: str = IMAGES) -> list[dict[str, Any]]:
    """The records of the names file, novel ones marked by a fixed seed."""
    records = []
    for line in text.strip().splitlines():
        group, images = line.split(": ", 1)
        for image in images.split("; "):
            code, name = image.split(" ", 1)
            synonym = SYNONYMS.get(name, "")
            records.append({"code": code, "name": name, "plural": plural_of(name), "group": group, "synonym": synonym})
    generator = np.random.default_rng(NOVEL_SEED)
    novel = set(generator.permutation(len(records))[: round(NOVEL_SHARE * len(records))].tolist())
    return [{**record, "novel": i in novel} for i, record in enumerate(records)]


def check_names(records: list[dict[str, Any]], packages: Path) -> None:
    """Refuse a name that the packages do not use for the image.

    Raises:
        ConfigError: if an image is unknown, or a word of its name is not among the packages' words for it.
    """
    listed = json.loads((package_folder(packages, "emoji-datasource-google") / "emoji.json").read_text())
    labels = json.loads((package_folder(packages, "emojibase-data") / "en" / "data.json").read_text())
    by_file = {entry["image"].removesuffix(".png"): entry for entry in listed}
    by_code = {entry["hexcode"].lower().replace("-fe0f", ""): entry for entry in labels}
    for record in records:
        entry, label = by_file.get(record["code"]), by_code.get(record["code"].replace("-fe0f", ""))
        if entry is None or label is None:
            raise ConfigError(f"image {record['code']} ({record['name']}) is in no package; correct concept_list.py")
        known = " ".join([*entry["short_names"], entry["name"], label["label"], *label["tags"]]).lower()
        words = set(known.replace("_", " ").replace("-", " ").split())
        if not set(record["name"].split()) <= words:
            raise ConfigError(f"{record['code']} is not called {record['name']!r} but {entry['short_name']!r}")


def package_folder(packages: Path, name: str) -> Path:
    """Where the npm package `name` was unpacked under `packages`: as `name/`, or as `name-<version>/package/`.

    Raises:
        ConfigError: if it is not there.
    """
    for folder in (packages / name, *sorted(packages.glob(f"{name}-[0-9]*/package"))):
        if (folder / "package.json").is_file():
            return folder
    raise ConfigError(
        f"{packages} holds no unpacked npm package {name}; unpack it there (npm pack {name}, then tar xf)"
    )


def make_sheets(packages: Path, assets: Path) -> dict[str, Any]:
    """Write `sprites/` and `licenses/` under `assets`; returns the figures for the manifest."""
    records = parse_images()
    check_names(records, packages)
    sprites, licenses = assets / "sprites", assets / "licenses"
    sprites.mkdir(parents=True, exist_ok=True)
    licenses.mkdir(parents=True, exist_ok=True)
    rows = -(-len(records) // SHEET_COLUMNS)
    for style in STYLES:
        images = package_folder(packages, f"emoji-datasource-{style}") / "img" / style / "64"
        sheet = Image.new("RGBA", (SHEET_COLUMNS * SPRITE_SIZE, rows * SPRITE_SIZE))
        for i, record in enumerate(records):
            row, column = divmod(i, SHEET_COLUMNS)
            with Image.open(images / f"{record['code']}.png") as image:
                sheet.paste(image.convert("RGBA"), (column * SPRITE_SIZE, row * SPRITE_SIZE))
        sheet.save(sprites / f"{style}.png", optimize=True)
    (sprites / "names.json").write_text(json.dumps({"concepts": records}, indent=1) + "\n")
    (licenses / "ATTRIBUTION.txt").write_text(ATTRIBUTION)
    shutil.copyfile(
        package_folder(packages, "emoji-datasource-google") / "LICENSE", licenses / "LICENSE-emoji-data.txt"
    )
    shutil.copyfile(package_folder(packages, "emojibase-data") / "LICENSE", licenses / "LICENSE-emojibase.txt")
    return {"concepts": len(records), "novel": sum(record["novel"] for record in records), "novel_seed": NOVEL_SEED}
