"""A training's state after an epoch: saved whole or not at all, restored bit for bit.

The file is a safetensors file (https://github.com/huggingface/safetensors: tensors and text, no code) behind a
SHA-256 of it. An epoch counts once its checkpoint is on disk; its records travel in the same file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fmnist.errors import Failure
from fmnist.files import sealed, unsealed, write_whole

_FORMAT = "1"


@dataclass
class Checkpoint:
    """What is known after an epoch."""

    epoch: int = 0
    """The last one completed."""
    finished: bool = False
    """Whether training is over: the epochs are done, or it stopped early."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """What each epoch up to this one gave."""
    state: Mapping[str, Tensor] = field(default_factory=dict)
    """The engine's, with which the next epoch goes on."""
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    """The model's weights that are best so far; empty where the last epoch's are kept."""


def encode(checkpoint: Checkpoint) -> bytes:
    """The checkpoint as its file has it."""
    tensors = {f"state/{name}": tensor for name, tensor in checkpoint.state.items()}
    tensors |= {f"kept/{name}": tensor for name, tensor in checkpoint.kept.items()}
    facts = {"epoch": checkpoint.epoch, "finished": checkpoint.finished, "records": checkpoint.records}
    return sealed(pack(tensors, {"format": _FORMAT, "facts": json.dumps(facts)}))


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at `path`. Raises Failure; the one before then stands."""
    write_whole(path, encode(checkpoint))


def pack(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The tensors as a safetensors file."""
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata)


def unpack(content: bytes) -> dict[str, Tensor]:
    """What `pack` was given."""
    return load(content)


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`; an empty one where there is none yet. Raises Failure for a damaged one."""
    try:
        return decode(path.read_bytes(), path)
    except FileNotFoundError:
        return Checkpoint()
    except OSError as error:
        raise Failure(path, f"cannot be read ({error.strerror}); mend the disk or the folder's rights") from error


def decode(raw: bytes, name: object) -> Checkpoint:
    """What `encode` was given. Raises Failure, which calls it `name`, for a damaged one."""
    content = unsealed(raw, name)
    try:
        metadata = _metadata(content)
        if metadata["format"] != _FORMAT:
            raise Failure(name, f"has the format {metadata['format']}, not {_FORMAT}; use the version that wrote it")
        facts, tensors = json.loads(metadata["facts"]), load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise Failure(name, f"is no checkpoint ({error}); restore it or start anew") from error
    return Checkpoint(**facts, state=_below("state/", tensors), kept=_below("kept/", tensors))


def epoch_scores(path: Path) -> list[dict[str, float]]:
    """The scores of every epoch up to the checkpoint at `path`, the first epoch's first."""
    return [record["scores"] for record in read_checkpoint(path).records]


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _metadata(content: bytes) -> dict[str, str]:
    """A safetensors file begins with the length of a JSON header (8 bytes), which holds the metadata."""
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata
