"""What each tracker holds of a run, read with its own package: {(step, name): number} of its one run, and its settings."""

import json
import struct
from pathlib import Path


def tensorboard(home: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(home / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    numbers = {
        (event.step, tag): make_ndarray(event.tensor_proto).item()
        for tag in events.Tags()["tensors"]
        if not tag.startswith("config")
        for event in events.Tensors(tag)
    }
    (text,) = make_ndarray(events.Tensors("config/text_summary")[0].tensor_proto)
    lines = (line.strip().partition(": ") for line in text.decode().splitlines())
    return numbers, {key: json.loads(value) for key, _, value in lines}


def wandb(home: Path):
    """From the files of its offline mode; those of one run have its id."""
    from wandb.proto.wandb_internal_pb2 import Record

    numbers, config, ids = {}, {}, set()
    for path in sorted((home / "wandb").glob("offline-run-*/*.wandb")):
        for record in map(Record.FromString, logged(path.read_bytes())):
            ids |= {record.run.run_id} - {""}
            for update in (*record.run.config.update, *record.config.update):
                config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            step = row.pop("step", None)
            numbers |= {(step, name): number for name, number in row.items() if not name.startswith("_")}
    assert len(ids) == 1
    return numbers, config


def logged(data: bytes):
    """Records of a log in the format of LevelDB, after wandb's header of 7 bytes: parts of blocks of 32 KiB."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        size, kind = struct.unpack_from("<HB", data, place + 4)
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def trackio(home: Path):
    import sqlite3

    with sqlite3.connect(home / "trackio" / "fastgrpo.db") as base:
        rows = base.execute("select run_id, step, metrics from metrics").fetchall()
        configs = base.execute("select config from configs").fetchall()
    assert len({run for run, _, _ in rows}) == 1
    return {(step, name): number for _, step, text in rows for name, number in json.loads(text).items()}, json.loads(configs[0][0])


def mlflow(home: Path):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fastgrpo")
    (run,) = client.search_runs([experiment.experiment_id])
    numbers = {(m.step, m.key): m.value for name in run.data.metrics for m in client.get_metric_history(run.info.run_id, name)}
    return numbers, {key: json.loads(value) for key, value in run.data.params.items()}


READERS = {"tensorboard": tensorboard, "wandb": wandb, "trackio": trackio, "mlflow": mlflow}
