"""The four trackers behind one interface; each class is only used in the process of its tracker, and imports it when it is made.

    Tracker(home, name, config, step)    goes on with the tracker's run that `home` remembers, or starts one; `step` was the last one done
    row(step, numbers)                   one row of metrics.jsonl, numbers by flat names
    finish(failed)                       everything is brought to its place

What surprises: after a resume, steps that are done again are sent again. TensorBoard forgets the earlier ones, the others show both.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path

PROJECT = "fastgrpo"


class Tensorboard:
    """Event files below HOME/tensorboard."""

    def __init__(self, home: Path, name: str, config: Mapping[str, object], step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(home / "tensorboard"), purge_step=step + 1 if step else None)
        if not step:
            self._writer.add_text("config", "\n".join(f"    {key}: {json.dumps(value)}" for key, value in config.items()))

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step, new_style=True, double_precision=True)
        self._writer.flush()

    def finish(self, failed: bool) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases: its server, or files below HOME where WANDB_MODE=offline. Nothing but config and numbers is sent."""

    def __init__(self, home: Path, name: str, config: Mapping[str, object], step: int):
        import wandb

        identity = remembered(home / "wandb.id", lambda: uuid.uuid4().hex[:8])
        quiet = {"console": "off", "silent": True, "disable_git": True, "disable_code": True, "save_code": False}
        private = {"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False}
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=identity,
            name=name,
            dir=str(home),
            resume="allow",
            settings=wandb.Settings(**quiet, **private),
        )
        self._run.config.update(dict(config), allow_val_change=True)
        self._run.define_metric("*", step_metric="step")  # its own step cannot go back, as a resumed run does

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({"step": step, **numbers})

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class Trackio:
    """trackio: below HOME/trackio unless TRACKIO_DIR, TRACKIO_SPACE_ID or TRACKIO_SERVER_URL name another place.

    It only warns of what fails; here a warning is a failure.
    """

    def __init__(self, home: Path, name: str, config: Mapping[str, object], step: int):
        self._warned: list[str] = []
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = self._hear
        import trackio

        again = (home / "trackio.id").exists()
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        hardware = {"auto_log_cpu": False, "auto_log_gpu": False}
        self._warned.clear()
        self._run = trackio.init(
            project=project, name=name, config=dict(config), resume="must" if again else "never", embed=False, **hardware
        )
        self._require_no_warning()
        remembered(home / "trackio.id", lambda: name)

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)
        self._require_no_warning()

    def finish(self, failed: bool) -> None:
        self._run.finish()
        self._require_no_warning()

    def _hear(self, message, category, filename: str, *_) -> None:
        if category is UserWarning and "trackio" in filename:
            self._warned.append(str(message))

    def _require_no_warning(self) -> None:
        if self._warned:
            said = self._warned[0]
            self._warned.clear()
            raise RuntimeError(said)


class Mlflow:
    """MLflow: the server or store in MLFLOW_TRACKING_URI, or HOME/mlflow.db."""

    def __init__(self, home: Path, name: str, config: Mapping[str, object], step: int):
        from mlflow import MlflowClient

        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(home / 'mlflow.db').absolute()}"
        self._client = MlflowClient(tracking_uri=place)
        self._run = remembered(home / "mlflow.id", lambda: self._begin(name, config, home))
        self._client.update_run(self._run, status="RUNNING")

    def _begin(self, name: str, config: Mapping[str, object], home: Path) -> str:
        """The id of a new run. Its parameters cannot be changed later."""
        from mlflow.entities import Param

        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(project)
        place = None if os.environ.get("MLFLOW_TRACKING_URI") else (home / "artifacts").absolute().as_uri()
        identity = experiment.experiment_id if experiment else self._client.create_experiment(project, artifact_location=place)
        run = self._client.create_run(identity, run_name=name).info.run_id
        self._client.log_batch(run, params=[Param(key, json.dumps(value)) for key, value in config.items()])
        return run

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(self.allowed(name), number, now, step) for name, number in numbers.items()]
        for start in range(0, len(metrics), 1000):  # what one request may hold
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    @staticmethod
    def allowed(name: str) -> str:
        """MLflow refuses other characters, such as the @ of a problem set's split, and what could be a path elsewhere."""
        parts = (part for part in re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII).split("/") if part not in ("", "."))
        return "/".join("__" if part == ".." else part for part in parts)

    def finish(self, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


TRACKERS = {"tensorboard": Tensorboard, "wandb": Wandb, "trackio": Trackio, "mlflow": Mlflow}


def remembered(path: Path, make) -> str:
    """The name of the tracker's run in this file; made, and written there, the first time."""
    if not path.exists():
        identity = make()
        path.write_text(identity)
    return path.read_text()
