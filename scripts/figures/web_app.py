"""The screenshot of the web app in the documentation; it needs Gradio and a Chromium.

`PYTHONPATH=.:scripts:tests/support python -m figures.web_app FOLDER`: the folder holds runs of the demo.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from app_page import AppPage, running_app
from browser import HOW_TO_INSTALL, Browser, find_browser
from PIL import Image

from blip2_train.app.server import Settings
from blip2_train.errors import ConfigError

FILE = Path(__file__).parents[2] / "docs" / "figures" / "web-app.webp"
WIDTH, HEIGHT, QUALITY = 1180, 1500, 85
EXAMPLE = 3


def take(outputs: str, file: Path = FILE) -> None:
    """Match an example with its texts, look at the maps of the words, and take the screenshot.

    Raises:
        ConfigError: if there is no browser.
    """
    if (program := find_browser()) is None:
        raise ConfigError(HOW_TO_INSTALL)
    with running_app(Settings(outputs=outputs, port=0)) as address, Browser(program, WIDTH, HEIGHT) as browser:
        page = AppPage(browser, address)
        page.tab("match")
        page.example(EXAMPLE)
        page.click("match")
        page.until(".scored")
        page.click("look")
        page.images()
        page.wait("!document.querySelector('.generating, .pending, .translucent')")
        time.sleep(1)  # what fades in
        browser.image(file, whole=True)
    with Image.open(file) as shot:
        shot.convert("RGB").save(file, "WEBP", quality=QUALITY)


if __name__ == "__main__":
    take(sys.argv[1])
