"""A pretended GPU: tensors on the CPU that count as CUDA's, so that mixed devices and waits show on any machine.

    with PretendedGPU() as gpu:
        model = tiny_runs.make_model(folder, num_gpu=1)  # BasicSR takes the device "cuda"
        gpu.happened.clear()
        model.optimize_parameters(1)
    gpu.happened  # [Happened(kind="wait", what="tolist", where="basicsr_plugins/training/stepping.py:59"), ...]

Two modes work together. The outer one sees calls of Python: it answers ``tensor.device``, obeys ``.to(device)`` and
``device=``, and keeps a list of the storages that lie on the GPU. The inner one sees every kernel, also those of the
backward pass, and compares where its inputs lie. Kinds of what happened: ``mix`` (CUDA would raise), ``wait`` (the host
reads a value), ``copy`` (from or to the host, in the middle of things; it waits too), ``exchange`` (between ranks). All
arithmetic is the CPU's; what C++ decides by the device it sees (autocast's kernels, NCCL, graphs) stays unseen.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any, NamedTuple
from unittest import mock

import mmengine.device  # noqa: F401 - asks for a GPU once, when it is imported: not while one is pretended
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

__all__ = ["Happened", "PretendedGPU"]

#: Kernels whose result the host needs before it can go on.
_HOST_READS = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim"})
_COPIES = frozenset({"copy_", "_to_copy", "_foreach_copy_"})
_INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"})
#: What programs ask CUDA before they use it.
_ANSWERS: dict[str, Any] = {
    "is_available": True,
    "is_initialized": True,
    "is_bf16_supported": True,
    "is_current_stream_capturing": False,
    "device_count": 1,
    "current_device": 0,
    "get_rng_state_all": [],
    "set_rng_state": None,
    "empty_cache": None,
}
_COLLECTIVES = ("all_reduce", "all_gather", "all_gather_object", "broadcast", "reduce")
_FOLDERS = ("basicsr_plugins/", "basicsr/")


class Happened(NamedTuple):
    """Something that costs time or fails on a GPU."""

    kind: str
    what: str
    where: str


def _leaves(*trees: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(trees)[0] if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _kind(device: Any) -> str:
    return torch.device(f"cuda:{device}" if isinstance(device, int) else device).type


def _place() -> str:
    """Return the innermost line that belongs to this package or to BasicSR."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        for folder in _FOLDERS:
            if folder in name:
                return f"{name[name.rindex(folder) :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


class PretendedGPU(TorchFunctionMode):
    """See the module's text; ``happened`` is what was seen so far."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[Happened] = []
        # the storages themselves are kept, so that no other one can get their address
        self._on_gpu: dict[int, Any] = {}
        #: made inside an operation from nothing: they go where they are used first
        self._anywhere: dict[int, Any] = {}
        self._kernels = _Kernels(self)
        self._patches = contextlib.ExitStack()

    def _counting(self, name: str, original: Any) -> Any:
        def collective(*args: Any, **kwargs: Any) -> Any:
            self.note("exchange", name)
            return original(*args, **kwargs)

        return collective

    def note(self, kind: str, what: str) -> None:
        """Remember something, with the line of the package in which it happened."""
        self.happened.append(Happened(kind, what, _place()))

    def kinds(self, *kinds: str) -> list[Happened]:
        """Return what happened of some kinds."""
        return [event for event in self.happened if event.kind in kinds]

    def has(self, tensor: Tensor) -> bool:
        """Whether the tensor lies on the GPU."""
        return _storage(tensor) in self._on_gpu

    def undecided(self, tensor: Tensor) -> bool:
        """Whether the tensor may still lie on either device."""
        return _storage(tensor) in self._anywhere

    def put(self, tensor: Tensor, on_gpu: bool) -> None:
        """Let the tensor lie on the GPU or on the CPU from here on."""
        key = _storage(tensor)
        self._anywhere.pop(key, None)
        if on_gpu:
            self._on_gpu[key] = tensor.untyped_storage()
        else:
            self._on_gpu.pop(key, None)

    def leave_open(self, tensor: Tensor) -> None:
        """Let the tensor lie wherever it is used first."""
        self._anywhere[_storage(tensor)] = tensor.untyped_storage()

    def __enter__(self) -> PretendedGPU:
        for name, answer in _ANSWERS.items():
            self._patches.enter_context(mock.patch(f"torch.cuda.{name}", return_value=answer))
        for name in _COLLECTIVES:
            counting = self._counting(name, getattr(torch.distributed, name))
            self._patches.enter_context(mock.patch(f"torch.distributed.{name}", counting))
        self._patches.enter_context(self._kernels)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None:
            if name == "__get__":
                answer = self._attribute(getattr(func, "__self__", None), first)
                if answer is not None:
                    return answer
            elif name in ("to", "cpu", "cuda", "type_as"):
                return self._moved(name, first, args[1:], kwargs)
            elif name == "tolist" and self.has(first):
                self.note("wait", name)
            elif name in ("numpy", "__array__") and self.has(first):
                self.note("mix", name)
            elif name == "one_hot":  # checks its classes on a CPU only
                with self._unseen():
                    return self._made(func(*args, **kwargs), self.has(first))
        return self._called(func, name, first, args, kwargs)

    def _attribute(self, getter: Any, tensor: Tensor) -> Any:
        on_gpu = self.has(tensor)
        if getter is torch.Tensor.device:
            return torch.device("cuda", 0) if on_gpu else torch.device("cpu")
        return {torch.Tensor.is_cuda: on_gpu, torch.Tensor.is_cpu: not on_gpu}.get(getter)

    def _moved(self, name: str, tensor: Tensor, args: Any, kwargs: dict[str, Any]) -> Tensor:
        devices = [value for value in (*args, kwargs.get("device")) if isinstance(value, (str, torch.device))]
        dtypes = [value for value in (*args, kwargs.get("dtype")) if isinstance(value, torch.dtype)]
        to_gpu = self.has(tensor)
        for other in _leaves(args, kwargs.get("other")):
            to_gpu, dtypes = self.has(other), [other.dtype]
        if name in ("cpu", "cuda"):
            to_gpu = name == "cuda"
        elif devices:
            to_gpu = _kind(devices[0]) == "cuda"
        kept = {key: kwargs[key] for key in ("copy", "memory_format") if kwargs.get(key)}
        moves = to_gpu != self.has(tensor)
        result = tensor.to(dtypes[0] if dtypes else tensor.dtype, **kept)
        if moves:
            self.note("copy", f"{name} {'GPU' if to_gpu else 'CPU'}")
            result = result.clone() if _storage(result) == _storage(tensor) else result
            self.put(result, to_gpu)
        return result

    def _called(self, func: Any, name: str, first: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        given = _leaves(args, kwargs)
        wanted = None
        if kwargs.get("device") is not None:
            wanted = _kind(kwargs["device"]) == "cuda"
            kwargs["device"] = "cpu"
        elif name in ("new_tensor", "__deepcopy__") and first is not None:
            wanted = self.has(first)
        generator = kwargs.get("generator")
        if wanted and generator is not None:
            self.note("mix", f"{name} with a generator of the CPU")
        known = {_storage(tensor) for tensor in given}
        result = func(*args, **kwargs)
        if wanted is None and given:
            return result
        if wanted and name in ("tensor", "as_tensor", "asarray", "new_tensor"):
            self.note("copy", f"{name} GPU")
        return self._made(result, bool(wanted), known)

    def _made(self, result: Any, on_gpu: bool, known: Any = ()) -> Any:
        for tensor in _leaves(result):
            if _storage(tensor) not in known:
                self.put(tensor, on_gpu)
        return result

    @contextlib.contextmanager
    def _unseen(self) -> Any:
        count = len(self.happened)
        yield
        del self.happened[count:]


class _Kernels(TorchDispatchMode):
    """The inner mode: compares where the inputs of a kernel lie, and says where its results lie."""

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, name, given = self.gpu, func.overloadpacket.__name__, _leaves(args, kwargs)
        on_gpu = any(map(gpu.has, given))
        if on_gpu:
            self._look(func, name, given)
        known = {_storage(tensor) for tensor in given}
        results = func(*args, **(kwargs or {}))
        for tensor in _leaves(results):
            if _storage(tensor) in known:
                if on_gpu and gpu.undecided(tensor):
                    gpu.put(tensor, True)
            elif on_gpu:
                gpu.put(tensor, True)
            elif all(map(gpu.undecided, given)):
                gpu.leave_open(tensor)
            else:
                gpu.put(tensor, False)
        return results

    def _look(self, func: Any, name: str, given: list[Tensor]) -> None:
        gpu = self.gpu
        strangers = [tensor for tensor in given if not gpu.has(tensor) and not gpu.undecided(tensor)]
        takes_numbers = torch.Tag.pointwise in func.tags or name == "fill_"  # a tensor () of the CPU is a number
        if strangers:
            if name in _COPIES or (name in _INDEXING and gpu.has(given[0])):
                gpu.note("copy", name)
            elif not (takes_numbers and all(tensor.dim() == 0 for tensor in strangers)):
                gpu.note("mix", name)
        masked = name in _INDEXING and any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:])
        if name in _HOST_READS or masked:
            gpu.note("wait", name)
