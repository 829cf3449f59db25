"""The image that programs in the Docker sandbox see, from the Dockerfile beside this module.

Where no registry can be reached the same is made from Debian's packages: `debootstrap` and `docker import`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from .errors import SandboxError

_SUITE = "bookworm"
_MIRROR = "http://deb.debian.org/debian"
_LEFT_OUT = ("./dev/*", "./proc/*", "./sys/*", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./usr/share/doc/*")


def dockerfile() -> str:
    """The Dockerfile."""
    return files(__package__).joinpath("Dockerfile").read_text(encoding="utf-8")


def image_name() -> str:
    """The image of this version of Ludus; its tag changes with the Dockerfile."""
    return f"ludus-sandbox:{hashlib.sha256(dockerfile().encode()).hexdigest()[:12]}"


def make_image(client: Any, how: Literal["auto", "registry", "debootstrap"] = "auto") -> str:
    """Make the image where it is not there yet, and return its name.

    client: of the `docker` SDK. how: "registry" builds from the Dockerfile, "debootstrap" makes it from Debian's
    packages (as root, on Linux; LUDUS_DEBIAN_MIRROR names a mirror); "auto" tries one after the other. Raises
    SandboxError where neither can.
    """
    import docker.errors

    try:
        client.images.get(image_name())
    except docker.errors.ImageNotFound:
        pass
    else:
        return image_name()
    reasons = []
    for name, make in (("registry", _from_registry), ("debootstrap", _from_packages)):
        if how in ("auto", name):
            try:
                make(client)
            except (docker.errors.DockerException, OSError, subprocess.CalledProcessError, SandboxError) as error:
                said = getattr(error, "stderr", "") or str(error)
                reasons.append(f"{name}: {said.strip()[-300:]}")
            else:
                return image_name()
    raise SandboxError(f"The image {image_name()} could not be made. {'; '.join(reasons)}")


def _from_registry(client: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="ludus-image-") as folder:
        Path(folder, "Dockerfile").write_text(dockerfile())
        client.images.build(path=folder, tag=image_name(), rm=True, forcerm=True)


def _from_packages(client: Any) -> None:
    program = shutil.which("debootstrap")
    if program is None:
        raise SandboxError("debootstrap is not here; `apt-get install debootstrap`.")
    if os.geteuid() != 0:
        raise SandboxError("debootstrap needs root.")
    mirror = os.environ.get("LUDUS_DEBIAN_MIRROR", _MIRROR)
    with tempfile.TemporaryDirectory(prefix="ludus-image-") as folder:
        root, archive = Path(folder, "root"), Path(folder, "root.tar")
        _call(program, "--variant=minbase", "--include=python3", _SUITE, str(root), mirror)
        with open(root / "etc/passwd", "a") as passwd, open(root / "etc/group", "a") as group:
            passwd.write("player:x:1000:1000::/tmp/work:/bin/sh\n")
            group.write("player:x:1000:\n")
        (root / "work").symlink_to("tmp/work")
        _call("tar", "-C", str(root), *(f"--exclude={one}" for one in _LEFT_OUT), "-cf", str(archive), ".")
        repository, tag = image_name().split(":")
        client.api.import_image(src=str(archive), repository=repository, tag=tag)


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
