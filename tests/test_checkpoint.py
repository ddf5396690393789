from pathlib import Path

import pytest
import torch

from fmnist.checkpoint import Checkpoint, epoch_scores, read_checkpoint, write_checkpoint
from fmnist.errors import Failure
from fmnist.files import read_sealed, write_sealed


def checkpoint() -> Checkpoint:
    weights = torch.randn(3, 4, 5, 5).to(memory_format=torch.channels_last)
    state = {"model/w": weights, "step": torch.tensor(7), "model/b": torch.tensor([float("nan"), -0.0, 1e-45])}
    records = [{"epoch": 1, "scores": {"val_loss": 0.1 + 0.2}, "confusion": [[1, 2], [3, 4]]}]
    return Checkpoint(epoch=1, finished=False, records=records, state=state, kept={"w": torch.ones(2)})


def test_a_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    written = checkpoint()
    write_checkpoint(tmp_path / "checkpoint", written)
    read = read_checkpoint(tmp_path / "checkpoint")
    assert (read.epoch, read.finished, read.records) == (1, False, written.records)
    for own, other in ((written.state, read.state), (written.kept, read.kept)):
        assert own.keys() == other.keys()
        for name, tensor in own.items():
            assert other[name].dtype == tensor.dtype
            assert other[name].contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()


def test_the_scores_of_each_epoch_can_be_had_alone(tmp_path: Path) -> None:
    assert epoch_scores(tmp_path / "checkpoint") == []
    write_checkpoint(tmp_path / "checkpoint", checkpoint())
    assert epoch_scores(tmp_path / "checkpoint") == [{"val_loss": 0.1 + 0.2}]


def test_before_the_first_epoch_there_is_an_empty_one(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "checkpoint") == Checkpoint()


@pytest.mark.parametrize("position", [0, 30, 90, 200, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, position: int) -> None:
    path = tmp_path / "checkpoint"
    write_checkpoint(path, checkpoint())
    raw = bytearray(path.read_bytes())
    raw[position] ^= 4
    path.write_bytes(raw)
    with pytest.raises(Failure, match="checkpoint: is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\x10\0\0\0\0\0\0\0{}              ", b"\x80\x04."])
def test_what_is_no_checkpoint_is_never_loaded(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint"
    write_sealed(path, content)
    with pytest.raises(Failure, match="checkpoint: is no checkpoint"):
        read_checkpoint(path)


def test_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    write_checkpoint(path, checkpoint())
    write_sealed(path, read_sealed(path).replace(b'"format":"1"', b'"format":"9"'))
    with pytest.raises(Failure, match="has the format 9, not 1; use the version that wrote it"):
        read_checkpoint(path)


def test_weights_that_share_memory_are_kept_apart(tmp_path: Path) -> None:
    tied = torch.arange(6.0)
    write_checkpoint(tmp_path / "checkpoint", Checkpoint(epoch=1, state={"a": tied, "b": tied, "c": tied[2:]}))
    state = read_checkpoint(tmp_path / "checkpoint").state
    assert torch.equal(state["a"], state["b"])
    assert torch.equal(state["c"], tied[2:])
