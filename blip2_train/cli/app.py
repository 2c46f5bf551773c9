"""`python scripts/app.py`: a page in the browser to caption, ask, match, search, compare, and look at data."""

from __future__ import annotations

import sys

from blip2_train.cli.command_parser import CommandParser
from blip2_train.cli.predict.options import DTYPES
from blip2_train.cli.terminal import kept_when_stopped, run_command
from blip2_train.errors import ConfigError
from blip2_train.system.screen import echo

ABOUT = """\
Serve a page that uses trained models: captions, answers, matching, search, two models side by side, and what a data
set holds. It is served to this machine alone, sends nothing anywhere, and deletes what was uploaded when it ends.

examples:
  python scripts/app.py                                              # the newest models of this machine
  python scripts/app.py --model Salesforce/blip2-opt-2.7b --dtype bfloat16
  python scripts/app.py --model last:demo_stage1 --images photos/ --data captions.csv"""


def parser() -> CommandParser:
    """The command's parser; a mistake raises `ConfigError`."""
    made = CommandParser(prog="app.py", description=ABOUT)
    made.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="SOURCE",
        help="export or run folder, last:<recipe>, Hugging Face BLIP-2 folder or id, LAVIS or Paddle file; may be "
        "repeated (default: the newest export of each recipe below --outputs)",
    )
    made.add_argument("--outputs", default="outputs", metavar="FOLDER", help="where runs lie (default outputs)")
    made.add_argument("--images", action="append", default=[], metavar="FOLDER", help="to search; may be repeated")
    made.add_argument("--data", action="append", default=[], metavar="SET", help="to look at; may be repeated")
    made.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at (default 127.0.0.1: this machine alone); at others only what is named here is opened",
    )
    made.add_argument("--port", type=int, default=7860, help="default 7860; 0 = a free one")
    made.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:<number> or mps (default cpu)")
    made.add_argument("--dtype", choices=DTYPES, metavar="TYPE", help="float32, bfloat16 or float16")
    return made


def main(arguments: list[str]) -> None:
    """Serve until Ctrl-C.

    Raises:
        Blip2TrainError: if it cannot begin.
    """
    options = parser().parse_args(arguments)
    if not 0 <= options.port < 65536:
        raise ConfigError(f"--port {options.port} is none; choose 1024 … 65535, or 0 for a free one")
    from blip2_train.app.server import Settings, served  # loads torch, which help does not need

    settings = Settings(
        models=tuple(options.model),
        outputs=options.outputs,
        folders=tuple(options.images),
        sets=tuple(options.data),
        host=options.host,
        port=options.port,
        device=options.device,
        dtype=options.dtype,
    )
    kept_when_stopped("uploads are deleted")
    with served(settings) as (server, address):
        echo(f"open {address} in a browser on this machine; Ctrl-C ends it", flush=True)
        server.run()


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
