"""A GPU for a machine without one: its tensors compute on the processor, but say they are elsewhere and mix with no others.

Importing this registers it with torch for the rest of the process, which then believes that it has an accelerator: for
processes of their own. What happens there has to happen inside `FakeGpu()`, which also keeps what the host would have waited for:
numbers that it reads, and shapes that depend on them.
"""

from __future__ import annotations

import traceback
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME, BYTES, PEAK_BYTES = "Fake GPU", 16_000_000_000, 123_000_000
_ops = torch.ops.aten
_READ = ("_local_scalar_dense", "equal", "is_nonzero")
_ASK = (*_READ, "nonzero", "masked_select", "_unique2", "unique_dim")


class _Module(_DummyBackendModule):
    """What torch.fake offers."""

    synchronized = 0

    def get_device_name(self) -> str:
        return NAME

    def get_device_properties(self) -> SimpleNamespace:
        return SimpleNamespace(total_memory=BYTES)

    def get_rng_state_all(self) -> list[torch.Tensor]:
        return []

    def set_rng_state_all(self, states: list[torch.Tensor]) -> None:
        pass

    def reset_peak_memory_stats(self) -> None:
        pass

    def max_memory_allocated(self) -> int:
        return PEAK_BYTES

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def synchronize(self) -> None:
        _Module.synchronized += 1


_setup_privateuseone_for_python_backend("fake", backend_module=_Module())
torch.accelerator.synchronize = torch.fake.synchronize
_autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
_autocast.fallback(torch.library.fallthrough_kernel)  # it casts nothing here
# In it operations would come whole, some of them of parts that wait.
torch.inference_mode = lambda mode=True: torch.set_grad_enabled(not mode and torch.is_grad_enabled())
torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter that moves is the same one, as on a real GPU
DEVICE = torch.device("fake", 0)


class There(torch.Tensor):
    """A tensor on the fake GPU."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"There({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {}, [])


class _Tensors(TorchFunctionMode):
    """What torch does below everything that could be told of it: `torch.tensor` makes its tensor there, and lists are read there."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == DEVICE.type:
            return func(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        if func is torch.Tensor.tolist and isinstance(args[0], There):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


class FakeGpu(TorchDispatchMode):
    """A block in which tensors can be made and moved there."""

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []
        """operations that the host waits for, each with the lines that led there"""
        self._tensors = _Tensors()

    def __enter__(self):
        self._tensors.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._tensors.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _computed(func, args, kwargs or {}, self.waits)


def _computed(func, args, kwargs, waits):
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, There)]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    makes = asked is not None and asked.type == DEVICE.type
    name = func.overloadpacket.__name__
    moves = func in (_ops._to_copy.default, _ops.copy_.default)
    if not there and not makes:
        return func(*args, **kwargs)
    strange = [x for x in tensors if not isinstance(x, There) and x.dim() > 0]
    if strange and not moves:
        raise RuntimeError(f"{name}: some of its tensors are on the GPU and some are not: {[x.shape for x in strange]}")
    stays = asked is None and not (name == "copy_" and not isinstance(args[0], There))
    if name in _ASK or _by_mask(name, args) or (moves and not (makes or stays)):
        waits.append(f"{name}\n" + "".join(traceback.format_stack(limit=16)[:-2]))
    plain_args, plain = pytree.tree_map(lambda x: x.inner if isinstance(x, There) else x, (args, dict(kwargs)))
    if asked is not None:
        plain["device"] = torch.device("cpu")
    out = func(*plain_args, **plain)
    if name == "copy_":
        return args[0]
    if name in _READ or (moves and not (makes or stays)):
        return out
    known = {id(x.inner): x for x in there}
    return pytree.tree_map(lambda x: known[id(x)] if id(x) in known else _there(x), out)


def _there(x):
    return There(x) if isinstance(x, torch.Tensor) else x


def _by_mask(name, args):
    """Whether what is picked depends on numbers that only the GPU knows."""
    return name in ("index", "index_put_") and any(x is not None and x.dtype == torch.bool for x in args[1])
