"""Act: engines, chat rendering, rollouts, evaluation. May use envs and the rooms below."""

if __name__ != "ludus.agents":
    raise ImportError(
        f"This folder is installed as ludus.agents: write 'import ludus.agents' instead of 'import {__name__}'."
    )
