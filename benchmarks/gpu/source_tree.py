"""Imports `ludus` from this source tree where it is not installed: no index, no network, nothing left behind."""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def use_source_tree() -> bool:
    """Make `ludus.*` importable; whether that took the source tree, through a temporary folder of symbolic links."""
    try:
        if importlib.util.find_spec("ludus.agents") is not None:
            return False
    except ImportError:
        pass
    # The repository's own folder ludus/ may have been found from its root, without the rooms beside it.
    for name in [name for name in sys.modules if name.split(".")[0] == "ludus"]:
        del sys.modules[name]
    script = importlib.util.spec_from_file_location("installed_tree", REPOSITORY / "scripts" / "installed_tree.py")
    assert script is not None and script.loader is not None
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    place = Path(tempfile.mkdtemp(prefix="ludus-source-")).resolve()
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    module.lay_tree(place)
    sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    return True
