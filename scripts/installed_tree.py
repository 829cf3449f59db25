"""Lays a folder of symbolic links in which every package stands under its installed name.

The rooms stand at the top of the repository and are installed under ``ludus.*``. Tools that read source files instead
of importing them (mypy, import-linter) need to see ``ludus/envs/task.py``; here they do, without a copy.

    python scripts/installed_tree.py .typecheck
"""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def lay_tree(place: Path) -> None:
    """Rebuilds `place` from the mapping in pyproject.toml: folders of its own, links to every file and subfolder."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    shutil.rmtree(place, ignore_errors=True)
    for name in sorted(settings["packages"]):
        source = REPOSITORY / settings["package-dir"][name]
        target = place / name.replace(".", "/")
        if not target.parent.is_symlink() and not target.exists():
            target.mkdir(parents=True)
            for entry in source.iterdir():
                if entry.suffix == ".py" or (entry / "__init__.py").exists() or entry.name == "py.typed":
                    (target / entry.name).symlink_to(os.path.relpath(entry, target))


if __name__ == "__main__":
    lay_tree(Path(sys.argv[1]).absolute())
