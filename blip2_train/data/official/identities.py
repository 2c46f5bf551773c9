"""Whether predictions are of exactly the images or questions that the references are of."""

from __future__ import annotations

from collections.abc import Collection, Hashable

from blip2_train.errors import ConfigError


def check_identities(
    predicted: Collection[Hashable],
    known: Collection[Hashable],
    *,
    thing: str = "image",
    prediction: str = "caption",
    reference: str = "references",
) -> None:
    """Refuse predictions with missing ids, extra ids, or the ids of another set.

    Args:
        predicted: Ids of the predictions; look-ups in it must be fast, as in a set or a dictionary.
        known: Ids of the references, likewise.
        thing: What an id stands for.
        prediction: What a thing has when it was predicted.
        reference: What a thing has when it is known.

    Raises:
        ConfigError: naming the first ids of each kind.
    """
    missing = [key for key in known if key not in predicted]
    extra = [key for key in predicted if key not in known]
    if not missing and not extra:
        return
    article = "an" if prediction[0] in "aeiou" else "a"
    faults = [
        f"{len(keys)} {thing}s have {what} (first: {', '.join(map(repr, keys[:3]))})"
        for keys, what in (
            (missing, f"{reference} but no {prediction}"),
            (extra, f"{article} {prediction} but no {reference.removeprefix('a ')}"),
        )
        if keys
    ]
    told = " and ".join(faults)
    if extra and len(missing) == len(known):
        advice = "the two have no id in common, so they are of different sets or splits; take the files of one"
        if {str(key) for key in missing} & {str(key) for key in extra}:
            advice = "the ids are numbers on one side, text on the other; write them as the references do"
        raise ConfigError(f"{told}; {advice}")
    raise ConfigError(f"{told}; predict for every {thing} of the annotation file, and for no other")
