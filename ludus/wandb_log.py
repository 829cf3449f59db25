"""The metrics of a run in Weights & Biases, offline too. A copy: metrics.jsonl is the truth."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .run_folder import PHASES
from .sandbox.errors import LudusError
from .tensorboard_log import scalars
from .trackers import Dated, Row, WandbConfig
from .whole_file import write_whole


class WandbError(LudusError):
    """Weights & Biases is not installed, or does not start."""


class WandbLog:
    """One run of W&B for a run folder, in its subfolder wandb/; after a resume the same one goes on.

    Names are those of TensorBoard, such as policy/reward, and each is drawn over the step of its phase, policy/step.
    W&B's own step may only grow, while phases begin anew at 1: it is the number of the row in metrics.jsonl. All rows
    are written again after a resume, and those that W&B has already are left out; offline, where it cannot know, the
    newest folder therefore holds everything. Steps that a roll-back took back stay there, since W&B forgets nothing,
    and `ahead` is by how much it counts more rows than metrics.jsonl.
    """

    def __init__(self, folder: Path, config: WandbConfig, recipe: dict[str, Any], name: str, group: str | None) -> None:
        """Start. recipe: the whole of it, as plain data. Raises WandbError with what to do."""
        wandb = wandb_package()
        self._file = folder / "wandb" / "run.json"
        self._id, self._ahead = self._kept()
        try:
            self.run = wandb.init(
                project=config.project,
                entity=config.entity,
                dir=str(folder),
                id=self._id,
                resume="allow",
                name=name,
                group=group,
                config=recipe,
                mode=config.mode,
                # The terminal is the display's. Without force a missing login would be asked for, or passed over.
                settings=wandb.Settings(silent=True, console="off", force=True),
            )
            for phase in PHASES:
                self.run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")
        except Exception as error:  # its own, those of its server, and those of its process
            raise _does_not_start(wandb, config, error) from error
        self._rows = 0
        self._next = self.run.starting_step
        self._begun = False

    @property
    def place(self) -> str:
        """Where to look at it: an address, or offline the folder that `wandb sync` takes."""
        return str(Path(self.run.dir).parent) if self.run.offline else str(self.run.url)

    def write(self, row: Row, wall_time: float) -> None:
        """Add the numbers of one metrics row, under the names that TensorBoard has."""
        self._begun = True
        step = self._rows + self._ahead
        self._rows += 1
        values = dict(scalars(row))
        if step < self._next or not values:
            return
        self.run.log({**values, f"{row['phase']}/step": row["step"], "_timestamp": wall_time}, step=step)
        self._next = step + 1

    def rewrite(self, rows: Sequence[Dated]) -> None:
        """Before the first row, after a resume: all rows again. Later, after a roll-back: what comes follows these."""
        if self._begun:
            self._rows = len(rows)
            self._ahead = self._next - len(rows)
            self._keep()
            return
        for row, wall_time in rows:
            self.write(row, wall_time)

    def close(self, failed: bool = False) -> None:
        """Finish the run, as failed where an exception ended it."""
        self.run.finish(exit_code=1 if failed else 0)

    def _kept(self) -> tuple[str, int]:
        """The id of the run and `ahead`, as they were kept, or new ones."""
        if self._file.is_file():
            try:
                kept = json.loads(self._file.read_bytes())
                return str(kept["id"]), int(kept["ahead"])
            except (ValueError, KeyError, TypeError):
                raise WandbError(f"{self._file} is damaged; remove it to begin a new run of W&B.") from None
        self._id, self._ahead = secrets.token_hex(4), 0
        self._file.parent.mkdir(exist_ok=True)
        self._keep()
        return self._id, self._ahead

    def _keep(self) -> None:
        write_whole(self._file, json.dumps({"id": self._id, "ahead": self._ahead}) + "\n")


def check_wandb(config: WandbConfig) -> None:
    """Raise WandbError where the package is missing, or says of a name, asking nobody, that it cannot be."""
    wandb = wandb_package()
    try:
        wandb.Settings(project=config.project, entity=config.entity)
    except Exception as error:
        raise _does_not_start(wandb, config, error) from error


def _does_not_start(wandb: Any, config: WandbConfig, error: Exception) -> WandbError:
    """What W&B said, in one sentence with what to do."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    login = config.mode != "offline" and (
        "login" in reason or isinstance(error, wandb.errors.AuthenticationError | wandb.errors.CommError)
    )
    cure = "run `wandb login`, or set trackers.wandb.mode: offline" if login else "change trackers.wandb"
    return WandbError(f"Weights & Biases does not start ({reason}); {cure}.")


def wandb_package() -> Any:
    """The package wandb. Raises WandbError where it is not installed."""
    try:
        import wandb
    except ImportError:
        raise WandbError("trackers.wandb needs one more package: pip install 'ludus[wandb]'") from None
    return wandb
