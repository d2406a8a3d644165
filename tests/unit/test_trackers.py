import json
import struct
import time
from dataclasses import replace

import pytest

from tailorbird.errors import NotFound
from tailorbird.network.settings import StepReport
from tailorbird.trackers import TensorBoard, values_of
from tailorbird.trainings import trackers_for

REPORTS = [
    StepReport(n, 3, 1.0 / n, 1e-3, 0.5, 10 * n, 0.1 * n, 0.5 + n / 10 if n == 3 else None) for n in (1, 2, 3)
]
FACTS = {"steps": 3, "tokens": 30}


def follow(tracker, reports=REPORTS):
    tracker.begin("from_scratch, text", FACTS)
    for report in reports:
        tracker.step(report)
    tracker.end()
    tracker.end()  # to end twice does no harm


def scalars(folder):
    """All numbers in event files, read by the format's own definition: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 12 + length + 4
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, name, package):
    monkeypatch.setattr("tailorbird.trackers.import_module", missing)
    with pytest.raises(
        NotFound, match=rf"tracker '{name}': the package {package} is not installed. .*tailorbird\[{name}\]"
    ):
        trackers_for([name], tmp_path, "m")


def missing(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_an_unknown_tracker_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(NotFound, match=r"tracker 'excel' is unknown\. Known: tensorboard, wandb, mlflow"):
        trackers_for(["excel"], tmp_path, "m")


def test_a_step_without_a_score_has_none():
    assert "dev_score" not in values_of(REPORTS[0])
    assert values_of(REPORTS[2])["dev_score"] == pytest.approx(0.8)


def test_a_step_over_preferences_tells_their_margin():
    assert "reward_margin" not in values_of(REPORTS[0])
    report = replace(REPORTS[0], reward_margin=0.0, reward_accuracy=0.5)
    assert (values_of(report)["reward_margin"], values_of(report)["reward_accuracy"]) == (0.0, 0.5)


def test_tensorboard_files_hold_every_step(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    [tracker] = trackers_for(["tensorboard"], tmp_path, "m")
    assert isinstance(tracker, TensorBoard)
    follow(tracker)
    found = scalars(tmp_path / "tensorboard" / "m" / "from_scratch-text")
    assert found["loss"] == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3})
    assert found["dev_score"] == pytest.approx({3: 0.8})
    assert set(found) == set(values_of(REPORTS[2]))


def log_records(content):
    """The records of a wandb file, a log of LevelDB's form: blocks of 32 KiB, parts of records in them."""
    block, place, record = 32_768, 7, b""
    while place + 7 <= len(content):
        if block - place % block < 7:  # too little room for another part
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.filterwarnings("default")
def test_weights_and_biases_keeps_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    follow(*trackers_for(["wandb"], tmp_path, "m"))
    from wandb.proto.wandb_internal_pb2 import Record

    [path] = (tmp_path / "wandb").rglob("run-*.wandb")
    until, rows = time.monotonic() + 60, []
    while len(rows) < len(REPORTS) and time.monotonic() < until:  # a process of its own writes the file
        time.sleep(0.1)
        rows = [
            {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
            for record in map(Record.FromString, log_records(path.read_bytes()))
            if record.WhichOneof("record_type") == "history"
        ]
    assert [row["loss"] for row in rows] == pytest.approx([1.0, 0.5, 1 / 3])
    assert rows[-1]["dev_score"] == pytest.approx(0.8)


@pytest.mark.filterwarnings("default")
def test_mlflow_keeps_a_run_in_a_database(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    follow(*trackers_for(["mlflow"], tmp_path, "m"))
    client = mlflow.MlflowClient()
    [run] = client.search_runs([client.get_experiment_by_name("tailorbird").experiment_id])
    assert run.info.run_name == "m, from_scratch, text"
    assert run.data.params == {"steps": "3", "tokens": "30"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert (tmp_path / "mlflow" / "mlflow.db").is_file()
