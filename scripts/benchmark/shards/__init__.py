"""The benchmark of many shards: `python scripts/benchmark.py part=shards`."""
