"""Pose tasks, answer actions, pay rewards. May use verifiers and sandbox."""

if __name__ != "ludus.envs":
    raise ImportError(f"This folder is installed as ludus.envs: write 'import ludus.envs' instead of 'import {__name__}'.")
