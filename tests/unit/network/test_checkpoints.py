import pytest
import torch

from tailorbird.network.checkpoints import checkpoints_of, is_whole, latest_checkpoint, save_checkpoint


def save(folder, step, identity="aa"):
    return save_checkpoint(folder, identity, step, {"w": torch.full((3,), float(step))}, {"step": step})


def test_the_newest_checkpoint_comes_back(tmp_path):
    save(tmp_path, 9)
    save(tmp_path, 10)
    tensors, facts = latest_checkpoint(tmp_path, "aa")
    assert facts == {"step": 10}
    assert tensors["w"].tolist() == [10.0] * 3


def test_nothing_saved_gives_nothing(tmp_path):
    assert latest_checkpoint(tmp_path / "absent", "aa") is None


def test_two_checkpoints_are_kept(tmp_path):
    for step in range(5):
        save(tmp_path, step)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith("3")] == ["aa-000000003"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_foreign_checkpoint_is_neither_used_nor_deleted(tmp_path):
    foreign = save(tmp_path, 99, identity="bb")
    for step in range(3):
        save(tmp_path, step)
    assert latest_checkpoint(tmp_path, "aa")[1] == {"step": 2}
    assert is_whole(foreign)
    assert latest_checkpoint(tmp_path, "cc") is None


@pytest.mark.parametrize("file", ["tensors.safetensors", "facts.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["shorten", "change", "delete"])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(tmp_path, file, damage):
    save(tmp_path, 1)
    torn = save(tmp_path, 2) / file
    content = bytearray(torn.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "delete":
        torn.unlink()
    else:
        torn.write_bytes(content if damage == "change" else content[:-1])
    assert latest_checkpoint(tmp_path, "aa")[1] == {"step": 1}


def test_an_interrupted_write_leaves_no_checkpoint_and_is_cleared_later(tmp_path):
    (tmp_path / ".aa-000000007.0123.tmp").mkdir()
    assert latest_checkpoint(tmp_path, "aa") is None
    save(tmp_path, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["aa-000000008"]


def test_writing_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 1)
    assert len(checkpoints_of(tmp_path, "aa")) == 1
