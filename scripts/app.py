"""A page in the browser that uses trained models: `python scripts/app.py [--model <export>] [--port 7860]`."""

from blip2_train.cli.app import command

if __name__ == "__main__":
    command()
