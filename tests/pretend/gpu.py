"""Gpu: tensors that claim to be on cuda:0, with the checks that CUDA makes.

Every tensor is on the CPU; a mark on its storage says that it claims to be on the GPU, so that
views, parameters and `.data` agree by themselves. Two modes of torch do the rest, for all that a
process does from `on()` to its end:

    Asked   sees what Python asks for: where a tensor is, copies to a device, arrays, generators
    Done    sees which operations are carried out, backward ones too: mixtures of devices, waits

Not pretended: kernels, cudnn, streams, graphs, memory, and processes that are started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.pretend import cuda
from tests.pretend.ledger import Ledger

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")

WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "bincount",
    "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave", "multinomial",
    "_linalg_eigh", "_linalg_svd", "linalg_qr", "_linalg_solve_ex", "linalg_cholesky_ex",
}  # fmt: skip
INDEX = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPIES = {"_to_copy", "copy_"}
ALIKE = {"cat", "stack"}  # take no number from the host either
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach"}


def on_gpu(tensor: Tensor) -> bool:
    """Whether a tensor claims to be on the GPU."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.layout is torch.strided and hasattr(tensor.untyped_storage(), "on_gpu")


def put(tensor: Tensor) -> Tensor:
    """Let a tensor claim to be on the GPU."""
    tensor.untyped_storage().on_gpu = True
    return tensor


def tensors(*tree: Any) -> list[Tensor]:
    """All tensors among arguments."""
    found: list[Tensor] = []
    for leaf in tree:
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, list | tuple):
            found += tensors(*leaf)
        elif isinstance(leaf, dict):
            found += tensors(*leaf.values())
    return found


def is_gpu(device: Any) -> bool:
    """Whether a device is the GPU; raises for a second one."""
    device = torch.device(device)
    if device.type == "cuda":
        cuda.known(device)
    return device.type == "cuda"


class Asked(TorchFunctionMode):
    """What Python asks for.

    Attributes:
        target: Whether what the present call makes out of no tensor is on the GPU.
        told: Whether the call names the device of its result.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger, self.target, self.told = ledger, False, False
        T = Tensor
        self.special: dict[Any, Callable[..., Any]] = {
            T.device.__get__: lambda f, t, *_: GPU if on_gpu(t) else f(t),
            T.is_cuda.__get__: lambda f, t, *_: on_gpu(t),
            T.is_cpu.__get__: lambda f, t, *_: f(t) and not on_gpu(t),
            T.get_device: lambda f, t: 0 if on_gpu(t) else f(t),
            T.to: self._to,
            T.cpu: lambda f, t, **_: self._to(T.to, t, CPU),
            T.cuda: lambda f, t, *_, **__: self._to(T.to, t, GPU),
            T.type_as: lambda f, t, other: self._to(T.to, t, other),
            T.numpy: self._array,
            T.__array__: self._array,
            T.tolist: self._list,
            T.new_tensor: lambda f, t, *a, **k: self._made(f, on_gpu(t), t, *a, **k),
            torch.tensor: lambda f, *a, **k: self._made(f, False, *a, **k),
            torch.as_tensor: self._as_tensor,
            T.__deepcopy__: lambda f, t, memo: put(f(t, memo)) if on_gpu(t) else f(t, memo),
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.special:
            return self.special[func](func, *args, **kwargs)
        if getattr(func, "__name__", "") in ("__get__", "__set__", "_parse_to"):
            return func(*args, **kwargs)
        device = kwargs.get("device")
        if device is None:
            target = any(map(on_gpu, tensors(args, kwargs)))
        elif target := is_gpu(device):
            kwargs["device"] = CPU
        self._check(kwargs.get("generator"), target, func)
        with self.making(target, told=device is not None):
            return func(*args, **kwargs)

    @contextmanager
    def making(self, target: bool, *, told: bool = False) -> Iterator[None]:
        """Inside, new tensors are on the GPU or not."""
        before = self.target, self.told
        self.target, self.told = target, told
        try:
            yield
        finally:
            self.target, self.told = before

    def _check(self, generator: torch.Generator | None, target: bool, func: Any) -> None:
        if generator is not None and (generator.device.type == "cuda") != target:
            raise self.ledger.mismatch(
                f"{func.__name__}: a generator on {generator.device.type} draws for the "
                f"{'GPU' if target else 'CPU'}"
            )

    def _to(self, to: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`tensor.to` in all its forms: (other), (dtype), (device, dtype)."""
        rest, device = list(args), kwargs.pop("device", None)
        other = kwargs.pop("other", None)
        if rest and isinstance(rest[0], Tensor):
            other = rest.pop(0)
        if other is not None:
            device, rest = GPU if on_gpu(other) else other.device, [other.dtype, *rest]
        elif rest and (rest[0] is None or isinstance(rest[0], str | int | torch.device)):
            device = rest.pop(0)
        if torch.device(device or CPU).type == "meta":
            return to(tensor, device, *rest, **kwargs)
        target = on_gpu(tensor) if device is None else is_gpu(device)
        if target != on_gpu(tensor):
            rest, kwargs["copy"] = rest[:2], True
        with self.making(target, told=True):
            return to(tensor, CPU, *rest, **kwargs)

    def _array(self, f: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if on_gpu(tensor):
            raise self.ledger.mismatch(
                "can't convert cuda:0 device type tensor to numpy", TypeError
            )
        return f(tensor, *args, **kwargs)

    def _list(self, f: Any, tensor: Tensor) -> Any:
        if on_gpu(tensor):
            self.ledger.copy("tolist")
        return f(tensor)

    def _made(self, f: Any, target: bool, *args: Any, **kwargs: Any) -> Tensor:
        """A tensor made of Python's numbers, on the CPU, and copied."""
        device = kwargs.pop("device", None)
        if device is not None:
            target = is_gpu(device)
        out: Tensor = f(*args, **kwargs)
        if target:
            self.ledger.copy(f.__name__)
        return put(out) if target else out

    def _as_tensor(self, f: Any, data: Any, dtype: Any = None, device: Any = None) -> Tensor:
        if isinstance(data, Tensor):
            return self._to(Tensor.to, data, device, dtype or data.dtype)
        return self._made(f, False, data, dtype=dtype, device=device)


class Done(TorchDispatchMode):
    """The operations that are carried out.

    Args:
        asked: Tells what the present call is for.
        ledger: Keeps what is seen.
    """

    def __init__(self, asked: Asked, ledger: Ledger) -> None:
        super().__init__()
        self.asked, self.ledger = asked, ledger

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and torch need not load its compiler

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, given = func.overloadpacket.__name__, tensors(args, kwargs)
        there = [t for t in given if on_gpu(t)]
        if name in COPIES:
            return self._copy(func, args, kwargs)
        if 0 < len(there) < len(given):
            self._mixed(name, args, given)
        target = self.asked.target if self.asked.told or not given else bool(there)
        if there or target:
            self._count(func, name, args)
        out = func(*args, **kwargs)
        if target:
            for made in tensors(out):
                if not any(made is t for t in given):
                    put(made)
        return out

    def _copy(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`_to_copy(source)`, or `copy_(target, source)`."""
        inside = func.overloadpacket.__name__ == "copy_"
        source = on_gpu(args[1] if inside else args[0])
        target = on_gpu(args[0]) if inside else self.asked.target if self.asked.told else source
        if source != target:
            free = kwargs.get("non_blocking") or (inside and True in args[2:3])
            self.ledger.copy("copy to the CPU" if source else "copy to the GPU", waits=not free)
        elif target:
            self.ledger.operations += 1
        out = func(*args, **kwargs)
        return put(out) if target else out

    def _mixed(self, name: str, args: tuple[Any, ...], given: list[Tensor]) -> None:
        """Tensors of both devices: a number on the CPU may join in, and indices are copied."""
        leads = name in INDEX or name.endswith("_")  # the first tensor says where it is done
        wrong = name in ALIKE or (leads and not on_gpu(given[0]))
        bound = tensors(args[2:3]) if name in INDEX else given
        if name in INDEX and any(t.dim() and not on_gpu(t) for t in tensors(args[1])):
            self.ledger.copy("indices on the CPU")
        if wrong or any(t.dim() and not on_gpu(t) for t in bound):
            told = ", ".join(f"{'cuda:0' if on_gpu(t) else 'cpu'} {tuple(t.shape)}" for t in given)
            raise self.ledger.mismatch(f"{name} of {told}")

    def _count(self, func: Any, name: str, args: tuple[Any, ...]) -> None:
        if name in INDEX and any(i.dtype is torch.bool for i in tensors(args[1])):
            self.ledger.wait("a mask as index")
        if name in WAITS:
            self.ledger.wait(name)
        if name not in NO_KERNEL and not func.is_view:
            self.ledger.operations += 1


def on() -> Ledger:
    """Pretend from here to the end of the process; returns what is kept of it."""
    ledger = Ledger()
    cuda.install(ledger)
    asked = Asked(ledger)
    engine = torch.autograd._engine_run_backward

    def backward(roots: Iterable[Tensor], *args: Any, **kwargs: Any) -> Any:
        # the engine is called from within torch.autograd.grad, where no mode sees a user's hook
        with asked.making(any(map(on_gpu, tensors(roots)))), asked:
            return engine(roots, *args, **kwargs)

    torch.autograd._engine_run_backward = backward
    Done(asked, ledger).__enter__()
    asked.__enter__()
    return ledger
