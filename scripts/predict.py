"""Use a trained model: `python scripts/predict.py caption --model <export> <images or folders>`."""

from blip2_train.cli.predict.command import command

if __name__ == "__main__":
    command()
