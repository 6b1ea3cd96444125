"""Benchmarks of Headwater beside the servers that people would choose instead: `make bench`, `python -m bench`.

`loadgen/` is the load generator (C), `peers/` starts the servers, `scenarios.py` defines what is measured,
`run.py` runs it interleaved, `report.py` and `plot.py` write `docs/benchmarks.md`.
"""
