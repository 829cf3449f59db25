"""Say whether a response is right. May use the sandbox."""

if __name__ != "ludus.verifiers":
    raise ImportError(
        f"This folder is installed as ludus.verifiers: write 'import ludus.verifiers' instead of 'import {__name__}'."
    )
