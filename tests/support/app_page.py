"""The page of the web app, as a person uses it: by what can be seen on it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from browser import Browser

from blip2_train.app.server import Settings, served

_VISIBLE = "(selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility())"
_BUTTON = "button:not(.tab-container button)"
"""Tabs have copies by which Gradio measures them."""
_BEGINS = "(one, label) => one.innerText.trim().replace(/\\s+/g, ' ').startsWith(label)"


@contextmanager
def running_app(settings: Settings) -> Iterator[str]:
    """Serve the app from a thread of this process; gives its address."""
    with served(settings) as (server, address):
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            yield address
        finally:
            server.stop()
            thread.join(30)


class AppPage:
    """The page in a browser.

    Args:
        browser: The browser.
        address: Of the app.
    """

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser = browser
        browser.visit(address)
        self.wait(f"{self._one('button[role=tab]', 'caption')} != null")

    def tab(self, name: str) -> None:
        """Turn to a tab; those that a narrow page has no room for are in a menu."""
        self.browser.run(
            f"({self._one('button[role=tab]', name)} ?? (({_VISIBLE})('.overflow-menu > button')[0].click(), "
            f"[...document.querySelectorAll('.overflow-dropdown button')].find((one) => one.innerText.trim() === "
            f"{json.dumps(name)}))).click()"
        )
        self.wait(f"document.querySelector('#tab-{name}')?.checkVisibility()")

    def click(self, label: str) -> None:
        """Press a button."""
        self.browser.run(f"{self._there(self._one(_BUTTON, label))}.click()")

    def example(self, index: int) -> None:
        """Click on an example, and wait until its image is shown."""
        shown = self._there(f"({_VISIBLE})('button.gallery-item')[{index}]")
        self.browser.run(f"{shown}.click()")
        self.wait(f"({_VISIBLE})('[data-testid=image] img').some((one) => one.complete && one.naturalWidth > 0)")

    def fill(self, label: str, value: str) -> None:
        """Write into a field."""
        field = f"{self._there(self._one('label', label))}.querySelector('textarea, input')"
        self.browser.run(
            f"(() => {{ const field = {field}; field.focus(); field.value = {json.dumps(value)}; "
            "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    def slide(self, label: str, value: float) -> None:
        """Write the number of a slider."""
        field = f"({_VISIBLE})('input[type=number]').find((one) => one.ariaLabel?.includes({json.dumps(label)}))"
        self.browser.run(
            f"(() => {{ const field = {self._there(field)}; field.focus(); field.value = {json.dumps(value)}; "
            "field.dispatchEvent(new Event('input', {bubbles: true})); field.blur(); })()"
        )

    def pick(self, label: str) -> None:
        """Choose one of the values of a radio field; fields of a fold that has just been opened miss a first click."""
        choice = self._there(self._one("label:has(> input[type=radio])", label))
        self.wait(f"{choice}.classList.contains('selected') || ({choice}.click(), false)")

    def field(self, label: str) -> str:
        """What a field holds."""
        return str(self.browser.run(f"{self._one('label', label)}.querySelector('textarea, input').value"))

    def choose(self, label: str, value: str) -> None:
        """Type into a field with choices, and press Enter."""
        self._there(f"({_VISIBLE})('input[aria-label=\"{label}\"]')[0]")
        press = "new KeyboardEvent('keydown', {key: 'Enter', code: 'Enter', bubbles: true})"
        self.browser.run(
            f"(() => {{ const field = ({_VISIBLE})('input[aria-label=\"{label}\"]')[0]; field.focus(); "
            f"field.value = {json.dumps(value)}; field.dispatchEvent(new Event('input', {{bubbles: true}})); "
            f"field.dispatchEvent({press}); field.blur(); }})()"
        )
        self.wait(f"({_VISIBLE})('input[aria-label=\"{label}\"]')[0].value === {json.dumps(value)}")

    def texts(self, selector: str) -> list[str]:
        """What visible elements say."""
        return [str(text) for text in self.browser.run(f"({_VISIBLE})('{selector}').map((one) => one.innerText)")]

    def until(self, selector: str, seconds: float = 150.0) -> list[str]:
        """What visible elements say, as soon as there are any that say something."""
        self.wait(f"({_VISIBLE})('{selector}').some((one) => one.innerText.trim())", seconds)
        return self.texts(selector)

    def images(self, seconds: float = 150.0) -> int:
        """How many images a result shows, as soon as it shows any."""
        return int(self.wait(f"({_VISIBLE})('.figures img').filter((one) => one.naturalWidth).length", seconds))

    def code(self) -> str:
        """The program that the visible tab shows; its fold is opened."""
        self.browser.run(
            f"({_VISIBLE})('button.label-wrap:not(.open)').filter((one) => ({_BEGINS})(one, 'as Python'))"
            ".forEach((one) => one.click())"
        )
        self.wait(f"({_VISIBLE})('.cm-content').some((one) => one.innerText.trim())")
        return str(
            self.browser.run(f"[...({_VISIBLE})('.cm-content .cm-line')].map((one) => one.innerText).join('\\n')")
        )

    def wait(self, script: str, seconds: float = 150.0) -> Any:
        """See `Browser.wait`."""
        return self.browser.wait(script, seconds)

    def _there(self, element: str) -> str:
        """JavaScript of an element, once it is on the page."""
        self.wait(f"({element}) != null")
        return element

    def _one(self, selector: str, label: str) -> str:
        """JavaScript of the first visible element that begins with a label."""
        return f"({_VISIBLE})({json.dumps(selector)}).find((one) => ({_BEGINS})(one, {json.dumps(label)}))"
