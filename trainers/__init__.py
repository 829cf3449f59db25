"""Learn: algorithms, losses, loops, checkpoints. May use agents and the rooms below."""

if __name__ != "ludus.trainers":
    raise ImportError(
        f"This folder is installed as ludus.trainers: write 'import ludus.trainers' instead of 'import {__name__}'."
    )
