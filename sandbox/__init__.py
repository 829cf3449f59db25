"""Run code nobody trusts: the ground floor of the house."""

if __name__ != "ludus.sandbox":
    raise ImportError(
        f"This folder is installed as ludus.sandbox: write 'import ludus.sandbox' instead of 'import {__name__}'."
    )
