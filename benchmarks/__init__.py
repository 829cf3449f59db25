"""Benchmarks: what Ludus promises in numbers, each beside the peer that is measured in the same run.

python -m benchmarks [NAME ...] [--quick]      --list shows the names
python -m benchmarks.gpu                       on a machine with one GPU, where Ludus need not be installed
"""
