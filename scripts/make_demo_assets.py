"""Rebuild the assets of the embedded world from the unpacked emoji packages."""

from demo_assets.command import main

if __name__ == "__main__":
    main()
