"""Use a trained model: `python scripts/predict.py caption --model <export> <pictures or folders>`."""

from blip2_train.cli.predict import command

if __name__ == "__main__":
    command()
