"""The command that rebuilds the packaged assets, one by one or all, and writes what they reached to the manifest."""

from __future__ import annotations

import argparse
import json
import pkgutil
from pathlib import Path
from typing import Any

from blip2_train.system.screen import echo

ASSETS = Path(__file__).resolve().parents[2] / "blip2_train" / "assets" / "demo"
TRAINED = {
    "vision": "demo_assets.tower:make_tower",
    "bert": "demo_assets.bert:make_bert",
    "opt": "demo_assets.language_models:make_opt",
    "opt_instruct": "demo_assets.language_models:make_opt_instruct",
    "t5": "demo_assets.language_models:make_t5",
}
"""The function that makes each, imported only when it does."""


def record(assets: Path, name: str, figures: dict[str, Any]) -> None:
    """Put the figures of one asset into `manifest.json`, keeping the others."""
    path = assets / "manifest.json"
    manifest = json.loads(path.read_text()) if path.is_file() else {}
    manifest[name] = figures
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Rebuild what is named on the command line."""
    parser = argparse.ArgumentParser(description="Rebuild the assets of the emoji scenes with fixed seeds.")
    parser.add_argument("asset", choices=["sheets", *TRAINED, "all"], help="which part; all builds them in this order")
    parser.add_argument(
        "--packages",
        type=Path,
        help="folder with the unpacked npm packages emoji-datasource-google 16.0.0, emoji-datasource-twitter 16.0.0 "
        "and emojibase-data 17.0.0 (needed for sheets and all)",
    )
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder to write to (default: the package's own)")
    parser.add_argument("--steps", type=int, help="training steps instead of the asset's own number, for a try")
    parser.add_argument("--threads", type=int, default=2, help="processor threads for training (default 2)")
    chosen = parser.parse_args(arguments)
    import torch  # help does not need it

    from demo_assets.sheets import make_sheets

    torch.set_num_threads(chosen.threads)
    torch.use_deterministic_algorithms(True)
    if chosen.asset in ("sheets", "all"):
        if chosen.packages is None:
            parser.error("the sprite sheets are cut from the npm packages: give their folder with --packages")
        record(chosen.assets, "sheets", make_sheets(chosen.packages, chosen.assets))
    options = {} if chosen.steps is None else {"steps": chosen.steps}
    for name, make in TRAINED.items():
        if chosen.asset in (name, "all"):
            figures = pkgutil.resolve_name(make)(chosen.assets, **options)
            echo(name, figures)
            record(chosen.assets, name, figures)
