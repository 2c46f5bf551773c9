"""Wrong settings, recipes that are none, options of Lightning, and what is not installed."""

from __future__ import annotations

from fault_test.desk import Desk
from fault_test.table import refused, row

GROUP = "settings"
DEMO = "experiment=demo_stage1"


def recipe(desk: Desk, content: str) -> list[object]:
    """Arguments that name a recipe of one's own."""
    folder = desk.folder / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(content)
    return ["--config-dir", folder.parent, "experiment=mine"]


def say(command: str, name: str, words: str, *arguments: str, cold: bool = False) -> None:
    """A row of a wrong setting, beside those of a tiny run."""
    refused(GROUP, name, command, lambda desk: desk.training(*arguments), words, cold=cold)


say("train", "a key that is misspelt", r"'optim\.lrr'.*did you mean 'optim\.lr'", "optim.lrr=3", cold=True)
say("train", "a text for a number", r"optim\.lr is '1e-4x'.*a number", "optim.lr=1e-4x")
say("train", "a batch that cannot be divided", r"not divisible by accumulate 3", "accumulate=3")
say("doctor", "a key that is misspelt, to doctor", r"'optim\.warmup_stps'", "optim.warmup_stps=3")
say("check", "an option that there is not, to check", r"trainer.*did you mean", "trainer=cppu")
say("train", "Lightning's own gradient clipping", r"gradient_clip_val.*optim\.", "+trainer.gradient_clip_val=1.0")
say("train", "no training batches at all", r"limit_train_batches", "+trainer.limit_train_batches=0")
say("train", "Lightning's own limit of time", r"max_time", "+trainer.max_time=00:00:00:01")
say("train", "two machines without a launcher", r"num_nodes", "trainer.num_nodes=2")
say("train", "weights in 16 bits", r"precision", "trainer.precision=bf16-true")
say("train", "a value that refers to nothing", r"optim\.lr.*nothing", "optim.lr=${nothing}")
refused(GROUP, "an unknown recipe", "train", lambda desk: ["experiment=stage1_vitg"], "did you mean stage1_vit_g")
refused(GROUP, "an unknown recipe, to describe", "describe", lambda desk: ["experiment=demo_stag1"], "demo_stage1")
refused(
    GROUP, "a recipe that is no YAML", "train", lambda d: recipe(d, "# @package _global_\nsteps: [1"), r"mine\.yaml"
)
refused(
    GROUP,
    "a recipe with a number of 5,000 digits",
    "train",
    lambda desk: recipe(desk, f"# @package _global_\ndefaults: [demo_stage1, _self_]\nsteps: {'1' * 5000}\n"),
    r"mine\.yaml|steps",
)
refused(
    GROUP,
    "a recipe too deep to be read",
    "train",
    lambda desk: recipe(desk, f"# @package _global_\nsteps: {'[' * 3000}{']' * 3000}\n"),
    r"mine\.yaml|steps",
)
refused(GROUP, "an unknown option, to predict", "predict", lambda d: ["caption", "--modl", "x", "y"], "model|modl")
refused(GROUP, "an unknown key, to make_shards", "make_shards", lambda d: ["sorce=x", "output=y"], "source")
refused(GROUP, "an unknown key, to capfilt", "capfilt", lambda d: ["sorce=x", "output=y"], "source")
refused(GROUP, "an unknown task, to evaluate", "evaluate", lambda d: ["evaluation=own_caption"], "own_captions")
refused(
    GROUP,
    "a run on a GPU where there is none",
    "train",
    lambda desk: desk.training("trainer=gpu"),
    r"GPU|CUDA|cuda",
    environment={"CUDA_VISIBLE_DEVICES": ""},
)
refused(
    GROUP,
    "an 8-bit language model without bitsandbytes",
    "train",
    lambda desk: [
        "experiment=demo_stage2_opt",
        "model.language.quantization=int8",
        "trainer=cpu",
        f"init_from={desk.world.stage1}",
        f"paths.output_dir={desk.folder / 'out'}",
        f"paths.data_dir={desk.folder / 'data'}",
        "data.prepare.train_scenes=20",
        "data.prepare.val_scenes=4",
        "data.prepare.test_scenes=4",
        "data.prepare.nocaps_scenes=4",
    ],
    r"bitsandbytes.*pip install",
    hide=["bitsandbytes"],
)
refused(
    GROUP,
    "a parquet file without pyarrow",
    "make_shards",
    lambda desk: [f"source={parquet(desk)}", f"output={desk.folder / 'made'}"],
    r"pyarrow.*pip install",
    hide=["pyarrow"],
)
refused(
    GROUP,
    "shards on S3 without s3fs",
    "train",
    lambda desk: desk.training("data.source=s3://bucket/shards"),
    r"s3fs.*pip install",
    hide=["s3fs"],
)
refused(
    GROUP,
    "Weights & Biases without a key",
    "train",
    lambda desk: desk.training("logger=wandb"),
    r"W&B|wandb|Weights",
    environment={
        "WANDB_MODE": "online",
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_API_KEY": "",
        "NETRC": "/dev/null",
    },
)


def parquet(desk: Desk) -> str:
    """A parquet file's name is enough: it cannot be read."""
    (desk.folder / "captions.parquet").write_bytes(b"PAR1")
    return str(desk.folder / "captions.parquet")


@row(GROUP, "three things wrong at once")
def several(desk: Desk) -> str:
    ended = desk.run("train", *desk.training("optim.lr=x", "image_size=y", "optim.betaz=3"))
    errors = "\n".join(ended.errors)
    assert ended.code == 2 and "Traceback" not in ended.out + ended.err, (ended.code, ended.err[-500:])
    assert len(ended.errors) == 3 and all(key in errors for key in ("optim.lr", "image_size", "optim.betaz")), (
        ended.errors
    )
    return f"{ended.code}, {len(ended.errors)} lines: {' / '.join(ended.errors)}"


@row(GROUP, "only the steps of a demo recipe are changed")
def steps_alone(desk: Desk) -> str:
    ended = desk.well("train", DEMO, "steps=100", "--cfg", "job", words="steps: 100")
    return f"{ended.code}, a configuration"


@row(GROUP, "a terminal that belongs to a SLURM job")
def slurm_shell(desk: Desk) -> str:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash", "SLURM_PROCID": "0"}
    slurm |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "2", "SLURM_NODELIST": "a[1-2]"}
    two = ("steps=2", "validate_every=2", "optim.warmup_steps=0")
    return f"{desk.well('train', *desk.training(*two), environment=slurm).code}, trained"
