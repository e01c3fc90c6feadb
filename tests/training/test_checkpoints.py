"""The files of a training: whole or refused, the last two kept, a full disk survived."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastpdr.training import checkpoints
from fastpdr.training.checkpoints import Checkpoints, as_bytes, digest, read, write
from fastpdr.training.signals import Signals

TENSORS = {
    "a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "b": torch.tensor(7, dtype=torch.int64),
    "c": torch.empty(0),
    "d": torch.ones(5, dtype=torch.bfloat16),
}
DATA, SETTINGS = {"X": "1f"}, {"learning_rate": 0.006, "n_epochs": 10}


class Stub:
    """Stands for a training: its files alone matter here."""

    def __init__(self, number=1, ended=False):
        self.number, self.ended, self.restored = number, ended, None

    def tensors(self):
        return TENSORS

    def facts(self):
        return {"number": self.number, "ended": self.ended, "state": {}, "callbacks": []}

    def restore(self, checkpoint):
        self.restored = checkpoint


def opened(folder, resume="auto", data=DATA, settings=SETTINGS):
    return Checkpoints("Map", folder, 60.0, resume, data, settings)


def left(folder, *numbers, ended=False):
    """Leave checkpoints of these steps in a folder, as one training does."""
    training = opened(folder, resume=False)
    training.seed = 3
    training.begin(Stub(), "graph")
    for number in numbers:
        training.keep(Stub(number, ended))
    return sorted(folder.iterdir())


def test_a_file_gives_back_what_was_written(tmp_path):
    path = tmp_path / "step-000000000001.safetensors"
    facts = {"loss_history": [0.1, 1 / 3, float("inf")], "nested": [["x", {"best": 1e-300}]]}
    write(path, TENSORS, facts)
    found = read(path)
    assert found.facts == {"format_version": checkpoints.FORMAT_VERSION, **facts}
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cut", [0, 3, 200, -1])
def test_torn_files_are_refused(cut, tmp_path):
    path = tmp_path / "step-000000000001.safetensors"
    write(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="is damaged"):
        read(path)


def test_a_changed_byte_of_numbers_or_words_is_refused(tmp_path):
    path = tmp_path / "step-000000000001.safetensors"
    write(path, TENSORS, {"number": 12345})
    content = path.read_bytes()
    for changed in (content[:-1] + bytes([content[-1] ^ 1]), content.replace(b"12345", b"12346")):
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="is damaged"):
            read(path)


def test_files_of_others_and_of_newer_versions_are_named(tmp_path):
    path = tmp_path / "step-000000000001.safetensors"
    save_file(TENSORS, path)
    with pytest.raises(ValueError, match="is no checkpoint of fastpdr"):
        read(path)
    text = json.dumps({"format_version": checkpoints.FORMAT_VERSION + 1})
    total = str(checkpoints.checksum(TENSORS, text))
    save_file(TENSORS, path, {checkpoints.HEADER: text, "crc32": total})
    with pytest.raises(ValueError, match="newer fastpdr"):
        read(path)


def test_a_hash_tells_values_shapes_and_types_apart():
    values = np.arange(6, dtype=np.float32)
    different = [values, values + 1, values.reshape(2, 3), values.astype(np.float64), values[::-1], values[:0]]
    words = [np.array(["ab", "c"]), np.array(["a", "bc"]), np.array(["ab", "c"], dtype=object)]
    assert len({digest(array) for array in different + words}) == len(different + words)
    assert digest(torch.from_numpy(values)) == digest(torch.from_numpy(values.copy()))
    assert bytes(as_bytes(values.reshape(2, 3).T)) == values.reshape(2, 3).T.tobytes()


def test_the_last_two_are_kept(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".step-000000000001.safetensors.99").touch()  # of a process that was killed
    names = [path.name for path in left(tmp_path, 5, 10, 15)]
    assert names == ["notes.txt", "step-000000000010.safetensors", "step-000000000015.safetensors"]
    resumed = opened(tmp_path)
    assert (resumed.found.facts["number"], resumed.seed) == (15, 3)
    stub = Stub(20)
    resumed.begin(stub, "graph")
    assert stub.restored is resumed.found
    resumed.keep(stub)
    assert {read(path).facts["number"] for path in tmp_path.glob(checkpoints.FILES)} == {15, 20}


def test_a_new_start_leaves_older_files_until_it_has_one_of_its_own(tmp_path):
    left(tmp_path, 5, 10)
    anew = opened(tmp_path, resume=False)
    assert anew.found is None
    assert len(list(tmp_path.iterdir())) == 2
    anew.keep(Stub(1))
    assert [read(path).facts["number"] for path in tmp_path.iterdir()] == [1]


def test_the_older_one_is_used_where_the_newest_is_torn(tmp_path):
    _, newest = left(tmp_path, 5, 10)
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"step-000000000010.safetensors is damaged .*; an older checkpoint is used"):
        resumed = opened(tmp_path)
    assert resumed.found.facts["number"] == 5
    resumed.keep(Stub(7))
    assert sorted(read(path).facts["number"] for path in tmp_path.iterdir()) == [5, 7]


def test_without_a_whole_one_there_is_an_error(tmp_path):
    for path in left(tmp_path, 5, 10):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"Map: no checkpoint is whole: .*resume=False starts anew"):
        opened(tmp_path)
    assert opened(tmp_path, resume=False).found is None


def test_resume_true_needs_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="Map: checkpoint_dir .* holds no checkpoint to resume"):
        opened(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"X": "2e"}}, r"had other data \(X\)"),
        ({"settings": {**SETTINGS, "learning_rate": 0.1}}, r"other settings \(learning_rate was 0.006, is 0.1\)"),
        ({"settings": {"learning_rate": 0.006}}, r"other settings \(n_epochs was 10, is None\)"),
    ],
)
def test_another_training_is_named_and_only_a_finished_one_replaced(changes, message, tmp_path):
    left(tmp_path, 5)
    for resume in ("auto", True):
        with pytest.raises(ValueError, match=message + "; take another folder, or resume=False to start anew"):
            opened(tmp_path, resume, **changes)
    assert opened(tmp_path).found is not None
    left(tmp_path, 9, ended=True)
    assert opened(tmp_path, **changes).found is None
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, True, **changes)


def test_another_graph_is_warned_of(tmp_path):
    left(tmp_path, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(tmp_path).begin(Stub(), "graph")
    with pytest.warns(UserWarning, match="graph is not bit for bit that of the checkpoint"):
        opened(tmp_path).begin(Stub(), "other")


@pytest.mark.parametrize("place", ["file", "/proc/fastpdr"])
def test_folders_that_cannot_be_written_are_named(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"Map: checkpoint_dir .*{place} cannot be written to: "):
        opened(tmp_path / place)


def test_a_full_disk_costs_a_checkpoint_and_neither_the_training_nor_the_older_one(tmp_path):
    (path,) = left(tmp_path, 5)
    training = opened(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.warns(UserWarning, match=r"Map: no checkpoint after step 6: .*File too large"):
            training.keep(Stub(6))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == [path]
    assert read(path).facts["number"] == 5
    training.keep(Stub(7))
    assert len(list(tmp_path.iterdir())) == 2


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_with_a_checkpoint_and_a_second_one_at_once(number, error, tmp_path, caplog):
    training = opened(tmp_path)
    before = signal.getsignal(number)

    def train():
        with training.watching():
            assert not training.due
            os.kill(os.getpid(), number)
            assert training.due
            assert signal.getsignal(number) == before
            training.keep(Stub(4))

    with pytest.raises(error) as caught:
        train()
    assert [read(path).facts["number"] for path in tmp_path.iterdir()] == [4]
    assert f"Map: stopped by {signal.Signals(number).name} after step 4; the same training goes on from" in caplog.text
    assert error is KeyboardInterrupt or caught.value.code == 143
    assert signal.getsignal(number) == before


def test_a_signal_after_the_last_step_is_not_lost(tmp_path):
    training = opened(tmp_path)
    with pytest.raises(KeyboardInterrupt), training.watching():
        os.kill(os.getpid(), signal.SIGINT)


def test_ignored_signals_stay_so_and_other_threads_note_none():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals().noted():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    errors = []

    def note():
        try:
            with Signals().noted():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=note)
    thread.start()
    thread.join()
    assert not errors
