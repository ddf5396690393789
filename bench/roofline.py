"""The roofline of a training step, operator by operator: what each takes, and the least that its bytes and products
could take on this machine."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

SHOWN = 14
SKIPPED = ("view", "as_strided", "t", "permute", "slice", "select", "expand", "unfold", "detach", "alias", "empty")
"""They move nothing."""

Key = tuple[str, str]
"""An operator's name, and the shape of its largest tensor."""


class Operators(TorchDispatchMode):
    """Times each operator that runs within, forward and backward, and counts its bytes and multiply-adds."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[Key, float] = defaultdict(float)
        self.moved: dict[Key, float] = defaultdict(float)
        self.products: dict[Key, float] = defaultdict(float)
        self.calls: dict[Key, int] = defaultdict(int)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        started = time.perf_counter()
        result = func(*args, **kwargs)
        seconds = time.perf_counter() - started
        name = func.overloadpacket.__name__
        if not name.startswith(SKIPPED):
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            largest = max([*read, *written], key=Tensor.numel, default=None)
            key = name, "x".join(map(str, largest.shape)) if largest is not None else ""
            self.seconds[key] += seconds
            self.moved[key] += sum(tensor.nbytes for tensor in (*read, *written))
            self.products[key] += _multiply_adds(func, args, kwargs, result)
            self.calls[key] += 1
        return result


def _multiply_adds(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> float:
    count = flop_registry.get(func.overloadpacket)
    return count(*args, **kwargs, out_val=result) / 2 if count else 0.0


def copying(nbytes: float, quickest: Callable[[Callable[[], object]], float]) -> float:
    """Seconds in which that many bytes, read and written together, are copied, from the same places again and again."""
    source = torch.zeros(max(1, int(nbytes) // 4), dtype=torch.int16)
    target = torch.empty_like(source)
    return quickest(lambda: target.copy_(source))


def table(found: Operators, steps: int, peak: float, quickest: Callable[[Callable[[], object]], float]) -> list[str]:
    """Markdown: the operators that take longest. `peak`: multiply-adds a second."""
    lines = [
        "| operator, its largest tensor | calls | ms | MB | G multiply-adds | least ms | limit |",
        "|" + "---|" * 7,
    ]
    shown = sorted(found.seconds, key=found.seconds.__getitem__, reverse=True)[:SHOWN]
    sums = [0.0, 0.0]
    for key in shown:
        calls, moved, products = found.calls[key], found.moved[key], found.products[key]
        of_bytes, of_products = calls * copying(moved / calls, quickest) / steps, products / peak / steps
        taken, least = found.seconds[key] / steps, max(of_bytes, of_products)
        sums[0] += taken
        sums[1] += least
        limit = "products" if of_products > of_bytes else "memory"
        lines.append(
            f"| `{key[0]}` {key[1]} | {calls / steps:.0f} | {1e3 * taken:.2f} | {moved / steps / 1e6:.1f} "
            f"| {products / steps / 1e9:.2f} | {1e3 * least:.2f} | {limit} |"
        )
    rest = sum(found.seconds.values()) / steps - sums[0]
    lines.append(f"| these {len(shown)} | | {1e3 * sums[0]:.1f} | | | {1e3 * sums[1]:.1f} | |")
    lines.append(f"| all others | {sum(found.calls.values()) / steps:.0f} in all | {1e3 * rest:.1f} | | | | |")
    return lines
