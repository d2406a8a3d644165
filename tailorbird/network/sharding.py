"""Layers shared out between the processes that train together (FSDP2; Zhao et al. 2023, arXiv 2304.11277).

    held between passes   of every parameter of a layer, a run of its first dimension's rows
    a layer's pass        its parameters are gathered, used, and let go again
    its backward pass     gathered once more; the processes' gradients are added up, each keeps its rows' sums

What stands outside of the layers (embeddings, the last norm, the head) stays whole in every process. The loop
never meets a sharded tensor: it moves `Parts`, which are plain.

FSDP2 can't be taken off a module again, so what is sharded is a twin: a copy over the same memory.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tailorbird.errors import RecipeError, Unsupported
from tailorbird.network import processes
from tailorbird.network.batches import Batch
from tailorbird.network.memory import return_freed_memory
from tailorbird.network.optimizer import clip_gradients
from tailorbird.network.sequences import Unit


def twin_of(module: nn.Module) -> Any:
    """A copy of a module with parameters of its own, which lie in the same memory as the given one's."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().contiguous(), requires_grad=parameter.requires_grad)
        for parameter in module.parameters()
    }
    return copy.deepcopy(module, memo)


@contextmanager
def handed_over(module: nn.Module, twin: nn.Module) -> Generator[None]:
    """While the block runs, parameters that are trained lie in the twin alone; afterwards here, as trained.

    If the block raises they are lost: the other processes may no longer be there to give their parts.
    """
    lent = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    for parameter in lent.values():
        parameter.data = parameter.data.new_empty(0)
    yield
    trained = dict(twin.named_parameters())
    for name, parameter in lent.items():
        parameter.data = whole_of(trained[name]).to(parameter.device)


@contextmanager
def sharded(module: nn.Module) -> Generator[Any]:
    """A twin of the module with its layers shared out; what it learns is in the module after the block.

    Raises:
        RecipeError: this process is alone.
        Unsupported: no layers were found.
    """
    require_others()
    twin = twin_of(module)
    with handed_over(module, twin), warnings.catch_warnings():
        # Keys and values are views, and nobody changes them in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
        shard(twin, next(module.parameters()).device)
        yield twin


def require_others() -> None:
    """Sharding takes more than one process.

    Raises:
        RecipeError: this process is alone.
    """
    if not processes.together():
        raise RecipeError(
            "shard: layers can be shared out between several processes only, and this one is alone. Add "
            "--processes 2, start the command with torchrun, or leave --shard out."
        )


def shard(
    module: nn.Module,
    device: torch.device,
    *,
    root: nn.Module | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Share the module's layers out, and bring the rest to the device; one layer at a time is there whole.

    Args:
        module: anywhere; its layers are called as modules.
        device: where the processes work.
        root: the module that runs all layers, if it is called as one; then a layer is gathered while the one
            before it runs.
        dtype: what the layers are gathered and computed in; None is each parameter's own type.

    Raises:
        Unsupported: no layers were found.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    layers = layers_of(module)
    if device.type == "cpu":
        return_freed_memory()
    reduced = None if dtype is None else torch.float32
    mesh = init_device_mesh(device.type, (processes.num_processes(),))
    # torch remembers meshes for good, and by them their groups, which must end with `processes.joined`; a mesh
    # finds its group by name as well.
    getattr(mesh, "_pg_registry", dict[str, Any]()).clear()
    settings: dict[str, Any] = {
        "mesh": mesh,
        "reshard_after_forward": True,
        "mp_policy": MixedPrecisionPolicy(dtype, reduced, cast_forward_inputs=False),
    }
    for layer in layers:
        scalars = {parameter for parameter in layer.parameters() if not parameter.ndim}
        fully_shard(layer, ignored_params=scalars, **settings)
    rest = {parameter for parameter in module.parameters() if not is_sharded(parameter)}
    for tensor in (*rest, *module.buffers()):
        tensor.data = tensor.data.to(device)
    if root is not None:
        fully_shard(root, ignored_params=rest, **settings)
    made = [layer for layer in layers if isinstance(layer, FSDPModule)]
    for number, layer in enumerate(made):
        # Sums, not means: the loss is divided by all processes' labels already.
        layer.set_gradient_divide_factor(1.0)
        layer.set_force_sum_reduction_for_comms(True)
        if root is not None:
            # Told apart from what ran in evaluations, which torch would take for the layer before.
            layer.set_modules_to_backward_prefetch([made[max(0, number - 1)]])


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The layers of a network: the list of modules that holds most of its parameters.

    Raises:
        Unsupported: it has no list of modules.
    """
    lists = [child for child in module.modules() if isinstance(child, nn.ModuleList) and len(child)]
    if not lists:
        raise Unsupported(
            f"shard: {type(module).__name__} keeps its layers in no list, so they can't be shared out. Train it "
            "without --shard."
        )
    return list(max(lists, key=_num_parameters))


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of the tensor only."""
    return hasattr(tensor, "to_local")


def part_of(tensor: Tensor) -> tuple[Tensor, int]:
    """This process's part of a tensor, in the same memory, and which of the whole's rows is its first."""
    if not is_sharded(tensor):
        return tensor, 0
    return _own(tensor), processes.rank() * _rows_held(tensor.shape)


def whole_of(parameter: Tensor) -> Tensor:
    """All of a parameter, gathered by all processes together where it is sharded."""
    if not is_sharded(parameter):
        return parameter.detach()
    return _gathered(_own(parameter), parameter.shape)


def layer_bytes(module: nn.Module) -> int:
    """The most that a layer's gathered parameters take, by their own types; 0 where nothing is sharded."""
    if not any(map(is_sharded, module.parameters())):
        return 0
    return max(sum(p.numel() * p.element_size() for p in layer.parameters()) for layer in layers_of(module))


class Parts:
    """What this process holds, and moves, of every parameter: the parameter itself, or its part of it.

    Args:
        parameters: by unique names; some, or all, or none of them sharded.
        optimizer: the name of what moves them.

    Raises:
        RecipeError: "muon", which orthogonalizes whole matrices, is to move parts.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], optimizer: str) -> None:
        self.own: dict[str, nn.Parameter] = {}
        self._sharded: dict[int, nn.Parameter] = {}
        for name, parameter in parameters.items():
            if is_sharded(parameter):
                self.own[name] = nn.Parameter(_own(parameter))
                self._sharded[id(self.own[name])] = parameter
            else:
                self.own[name] = parameter
        if self._sharded and optimizer == "muon":
            raise RecipeError(
                "optimizer 'muon' needs whole matrices, and with sharding a process holds a part of each. Use "
                "'adamw', or train without sharding."
            )

    @property
    def sharded(self) -> bool:
        """Whether all processes must run the network the same number of times."""
        return bool(self._sharded)

    def forget_gradients(self) -> None:
        """No parameter has a gradient."""
        for parameter in (*self.own.values(), *self._sharded.values()):
            parameter.grad = None

    def rounds(
        self, batches: Sequence[Batch], sequences: Iterable[Unit], device: torch.device
    ) -> list[tuple[Batch, bool]]:
        """The batches of a step, and whether they count.

        Where parts are sharded, those that have fewer than others run an idle batch of `sequences` besides.
        """
        counted = [(batch, True) for batch in batches]
        if not self._sharded:
            return counted
        most = processes.any_of(len(batches), device)
        idle = Batch((min(sequences, key=len),))
        return [*counted, *[(idle, False)] * (most - len(batches))]

    def sum_gradients(self) -> None:
        """Give every part the sum of all processes' gradients; those of layers are summed already."""
        processes.sum_gradients(part for part in self.own.values() if id(part) not in self._sharded)
        for part in self.own.values():
            if (parameter := self._sharded.get(id(part))) is not None:
                gradient = parameter.grad
                part.grad = torch.zeros_like(part) if gradient is None else _own(gradient)

    def clip_gradients(self, max_norm: float) -> float:
        """As `optimizer.clip_gradients`, by the norm over all processes' parts."""
        if not self._sharded:
            return clip_gradients(self.own.values(), max_norm)
        parted, alike = list[Tensor](), list[Tensor]()
        for part in self.own.values():
            if part.grad is not None:
                (parted if id(part) in self._sharded else alike).append(part.grad)
        device = next(iter(self.own.values())).device
        square = float(nn.utils.get_total_norm(parted)) ** 2
        square = processes.summed([square], device)[0] + float(nn.utils.get_total_norm(alike)) ** 2
        norm = torch.tensor(square**0.5, device=device)
        nn.utils.clip_grads_with_norm_(self.own.values(), max_norm, norm)
        return float(norm)

    def whole(self, tensor: Tensor, part: nn.Parameter) -> Tensor:
        """All of a tensor that goes with a part and is shaped like it; one of another shape is the same in all.

        Where parts are sharded all processes must call this together, and the first alone gets all.
        """
        parameter = self._sharded.get(id(part))
        if parameter is None or tensor.shape != part.shape:
            return tensor
        gathered = _gathered(tensor.detach(), parameter.shape)
        return gathered.cpu() if processes.is_first() else tensor.new_empty(0)

    def cut(self, tensor: Tensor, part: nn.Parameter) -> Tensor:
        """What goes with a part, of a tensor that goes with all of the parameter."""
        parameter = self._sharded.get(id(part))
        if parameter is None or tensor.shape != parameter.shape:
            return tensor
        rows = _rows_held(tensor.shape)
        return tensor[rows * processes.rank() :][:rows].clone()


def _own(tensor: Any) -> Tensor:
    """This process's part of a sharded tensor, in the same memory."""
    return tensor.to_local().detach()


def _rows_held(shape: Sequence[int]) -> int:
    """How many rows a process holds; the last ones have fewer where they don't go round, or none."""
    return -(-shape[0] // processes.num_processes())


@torch.no_grad()
def _gathered(part: Tensor, shape: Sequence[int]) -> Tensor:
    """The whole of which every process has a part."""
    rows = _rows_held(shape)
    padded = part.new_zeros(rows, *shape[1:])
    padded[: len(part)] = part
    whole = part.new_empty(processes.num_processes() * rows, *shape[1:])
    with processes.lost_if_it_fails():
        dist.all_gather(list(whole.split(rows)), padded)
    return whole[: shape[0]]
