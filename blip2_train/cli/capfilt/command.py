"""`python scripts/capfilt.py source=… output=… captioner=… scorer=… [key=value …]`: shards with better captions."""

from __future__ import annotations

import sys

from blip2_train.cli.command_names import as_called
from blip2_train.cli.terminal import run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

ABOUT = """\
Write captions for images, rank them together with the images' own by how well they fit, and keep the best: CapFilt
as BLIP-2 cleaned web data. Makes tar shards as make_shards.py does; the .json of a sample holds the list "captions",
best first, with "caption_scores" and "caption_origins" (original or synthetic), of which training draws one in each
step. Repeated, the command goes on where it was stopped; the shards do not depend on that, nor on the number of
processes.

usage: python scripts/capfilt.py source=<what> output=<folder> captioner=<model> scorer=<model> [key=value …]

  source=<what>           tar shards, or whatever make_shards.py takes, with images=, split=,
                          picture_column=, caption_column= and id_column= as there
  output=<folder>         a new one, or that of the same command before; here or on s3:// or gs://, like tar shards
  captioner=<model>       writes: an export or run folder, last:<recipe>, Hugging Face folder or id, LAVIS file; or
                          blip:<folder or id of transformers' BLIP>, which the paper took
                          (blip:Salesforce/blip-image-captioning-large)
  scorer=<model>          ranks: a stage-1 model of these; clip:<folder or id of transformers' CLIP>, which the paper
                          took (clip:openai/clip-vit-large-patch14); or of OpenCLIP, open_clip:<model>/<tag or file> or
                          open_clip:<folder> (open_clip:ViT-L-14/openai; extra data)
  captions=<n>            synthetic captions of each image (10)
  keep=<n>                captions kept of each, the image's own among those that compete (2)
  score=<itc or itm>      what a stage-1 scorer ranks by: cosine, or log-odds of a match (itc)
  top_p= temperature= max_new_tokens=   of nucleus sampling (0.9, 1.0, 20)
  prompt=<text>           what captions go on from (as the captioner was trained; BLIP: a picture of)
  seed=<n>                of sampling; each sample has its own from it (42)
  batch_size=<n>          images at once (16); changes nothing but rounding
  device=<name> dtype=<name>   cpu, cuda, …; float16 or bfloat16 (a GPU if there is one; as configured)
  workers=<n>             processes (one per GPU, without GPU one per core), each with both models
  engine=<local|ray> ray_address=<address>   as for make_shards.py; all machines must see models, source and output,
                          which is begun below XDG_CACHE_HOME if it is remote
  gpus_per_worker=<n>     of workers of Ray, may be a part of one (0 = they work on CPUs)
  samples_per_shard= duplicates= min_side= max_aspect_ratio= resize= quality=   as for make_shards.py
  --help                  this text"""


def main(arguments: list[str]) -> None:
    """Give captions."""
    if arguments[:1] == ["demo"]:
        raise ConfigError("the demonstration is in a checkout of the project: python scripts/capfilt.py demo")
    if not arguments or {"--help", "-h"} & set(arguments):
        echo(as_called(ABOUT))
        return
    if flag := next((argument for argument in arguments if argument.startswith("--")), None):
        raise ConfigError(f"there is no setting {flag!r}; python scripts/capfilt.py --help lists them")
    from blip2_train.cli.capfilt.filtering import filter_captions  # loads torch, which help does not need

    filter_captions(arguments)


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
