"""Rebuild the assets of the emoji scenes from the unpacked emoji packages."""

import _environment  # noqa: F401  (goes on in .venv if this Python lacks the project)
from demo_assets.command import main

if __name__ == "__main__":
    main()
