"""What shards can be made from: a source that also tells what else is known of a sample."""

from __future__ import annotations

from typing import Any, Protocol

from blip2_train.data.sources.source import CaptionSource


class PairSource(CaptionSource, Protocol):
    """Images with captions, and what else is known of them."""

    def details(self, number: int) -> dict[str, Any]:
        """Entries for the record of sample `number`, as JSON holds them; `image_id` and `url` among them if known."""
        ...
