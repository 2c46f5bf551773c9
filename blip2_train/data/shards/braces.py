"""Ranges and lists in braces, as webdataset and img2dataset write them: `shards/{00000..00099}.tar`."""

from __future__ import annotations

import os

import braceexpand

from blip2_train.data.storage.remote import is_remote
from blip2_train.errors import ShardError


def expanded_braces(path: str) -> list[str]:
    """The paths that a path stands for: one for each value of its braces; itself if it has none, or lies there.

    Raises:
        ShardError: if a brace is not closed.

    Example:
        >>> expanded_braces("shards/{08..10}.tar"), expanded_braces("s3://bucket/{a,b}/*.tar")
        (['shards/08.tar', 'shards/09.tar', 'shards/10.tar'], ['s3://bucket/a/*.tar', 's3://bucket/b/*.tar'])
    """
    if "{" not in path or (not is_remote(path) and os.path.lexists(os.path.expanduser(path))):
        return [path]
    try:
        return list(braceexpand.braceexpand(path, escape=False))
    except ValueError:
        raise ShardError(f"{path} has a brace that is not closed; write a range as {{00000..00099}}") from None
