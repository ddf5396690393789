import fcntl
import os
import signal
from pathlib import Path

import pytest

from fmnist import files
from fmnist.errors import Failure, UserError


def test_a_whole_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_whole(path, "old")
    files.write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    files.write_whole(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Failure, match=r"x: cannot be written \(No space left on device\); make room"):
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_ctrl_c_within_a_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_whole(tmp_path / "x", "old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(tmp_path / "x", "new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("x", "old")]


def test_the_content_is_on_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (done.append("replace"), replace(self, target))[1])
    files.write_whole(tmp_path / "x", "new")
    assert done == ["fsync", "replace", "fsync"]


def test_a_tree_is_on_disk_with_its_place(tmp_path: Path, synced: set[int]) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("content")
    (tmp_path / "a" / "link").symlink_to("nowhere")
    files.sync_tree(tmp_path / "a")
    assert synced == {path.stat().st_ino for path in (tmp_path, *tmp_path.glob("**/[abc]"))}


def test_every_flipped_bit_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_sealed(path, b"content")
    assert files.read_sealed(path) == b"content"
    raw = path.read_bytes()
    for position in range(len(raw)):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        with pytest.raises(Failure, match="x: is damaged"):
            files.read_sealed(path)
    for length in (0, 10, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(Failure, match="x: is damaged"):
            files.read_sealed(path)


def test_a_scratch_folder_goes_with_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.scratch_folder(tmp_path / "parent") as scratch:
        (scratch / "half").write_text("half")
        raise RuntimeError
    assert list((tmp_path / "parent").iterdir()) == []


def test_what_a_killed_process_left_goes_after_a_day(tmp_path: Path) -> None:
    for name in (".scratch-old", ".scratch-new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".scratch-old", (0, 0))
    with files.scratch_folder(tmp_path):
        assert not (tmp_path / ".scratch-old").exists()
        assert (tmp_path / ".scratch-new").exists()


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be made a folder \(Not a directory\)"):
        files.make_folder(tmp_path / "file" / "below")


@pytest.mark.parametrize("patience", [0, 60])  # a busy machine may draw a look out for longer than one waits
def test_a_look_at_a_lock_does_not_keep_its_owner_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    path = tmp_path / "lock"
    assert not files.is_locked(path)
    path.touch()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as is_locked does for a moment
        monkeypatch.setattr(files.time, "sleep", lambda seconds: fcntl.flock(looking, fcntl.LOCK_UN))  # it waits: gone
        with files.held_lock(path, "me", patience=patience) as other:
            assert other is None
            assert files.is_locked(path)
            with files.held_lock(path, "you") as other:
                assert other == "me"
    assert not files.is_locked(path)


def test_a_lock_is_held_where_the_disk_has_no_room_for_its_holders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with files.held_lock(tmp_path / "lock", "me") as other:
        assert other is None
        with files.held_lock(tmp_path / "lock", "another", patience=0) as first:
            assert first == "another process"
