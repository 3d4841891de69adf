"""MaskedOptimizer: an optimiser under which dead weights and their gradients are exactly 0."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsediag.core.mask import Mask

CHECK_EVERY = 50  # steps between two checks of the dead weights
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes
Closure = Callable[[], Any]


class MaskedOptimizer:
    """An optimiser under a mask: call `step()` instead of `optimiser.step()`.

    From here on, dead weights are exactly 0 in every forward pass, whatever the optimiser does:

    - a backward pass leaves 0 at dead weights, in time for what reads gradients before a step:
      clipping, a gradient scaler, the ascent of SAM;
    - a step starts from masked gradients, and after it dead weights are set to 0, also if the
      optimiser itself is called (`scaler.step(optimiser)`, a trainer's loop);
    - dead weights are set to 0 before every pass of a closure (LBFGS, SAM), and gradients after it.

    This ends when the optimiser is deleted, is masked anew, or with `set_mask(None)`.

    Args:
        net: The network, wrapped or not; its dead weights are set to 0 at once.
        mask: The live weights; None keeps every weight.
        optimiser: A `torch.optim.Optimizer` of the parameters of `net`.

    Raises:
        ValueError: If the mask does not fit, or cannot be held: the optimiser has copies of the
            weights, or runs no hooks around its steps.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> masked = MaskedOptimizer(net, Mask({"weight": torch.tensor([[True, False]])}), optimiser)
    >>> net(torch.ones(1, 2)).sum().backward()
    >>> masked.step()
    >>> net.weight[0, 1].item()
    0.0
    """

    why_eager: ClassVar[str] = ""  # the reason why no step can be replayed, if there is one
    masks_backward: ClassVar[bool] = True  # False if a step reads the gradients of dead weights

    def __init__(self, net: nn.Module, mask: Mask | None, optimiser: torch.optim.Optimizer) -> None:
        self.net, self.optimiser = net, optimiser
        self.mask: Mask | None = None
        self.held: MaskedWeights | None = None
        self.set_mask(mask)

    def set_mask(self, mask: Mask | None) -> None:
        """Set another mask, or none; weights that it kills become 0, and their state too."""
        if self.held is None or (mask or {}).keys() != (self.mask or {}).keys():
            weights = list(mask.weights_of(self.net).values()) if mask else []
            check_optimiser(self.optimiser, self.net, weights)
            self.held = hold(self.optimiser, weights, backward=self.masks_backward)
        if mask is not None:
            mask = mask.to(next(self.net.parameters()).device)
            mask.apply_(self.net)
            self.held.set_alive(mask.values())
            self.held.mask_states(self.optimiser)
        self.mask = mask

    @property
    def weights(self) -> list[Tensor]:
        """The weights that the mask covers, in its order."""
        return self.held.weights if self.held else []

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimiser, for `torch.amp.GradScaler.step(masked)`."""
        return self.optimiser.param_groups

    def sample_gates(self) -> None:
        """Prepare the weights for a forward pass; called before every one."""

    def step(self, closure: Closure | None = None) -> Any:
        """Take a step of the optimiser under the mask; call it after every backward pass.

        Args:
            closure: Computes the loss and its gradients, for optimisers that need it.
        """
        loss = self.update(closure)
        self.count()
        return loss

    def update(self, closure: Closure | None = None) -> Any:
        """Do the part of `step` that the device computes."""
        return self.optimiser.step() if closure is None else self.optimiser.step(closure)

    def count(self) -> None:
        """Do the other part of `step`: count it."""

    @property
    def repeats(self) -> bool:
        """Return whether the next step computes the same on the device as the steps around it."""
        return not self.why_eager

    @contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Inside, the network has the weights to evaluate and to save."""
        yield

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save beside the network, its mask and the optimiser."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def assert_masked(self) -> None:
        """Raise RuntimeError if a dead weight is not 0, or was found to be so before a step.

        A weight that is nan is left to the check of the loss.
        """
        violation = self.held.read_violation() if self.held else 0.0
        if violation > 0:
            raise RuntimeError(
                f"dead weights were moved between the steps of the optimiser, by {violation:.3g} "
                "in total; load weights before the optimiser is masked, and write none by hand"
            )

    report = assert_masked  # its first name

    def mask_gradients(self) -> None:
        """Set the gradients of dead weights to 0; a backward pass and `step` do so too."""
        if self.held:
            self.held.mask_gradients()


Keeper = MaskedOptimizer  # its first name


class MaskedWeights:
    """Weights whose dead entries, and those of their gradients, are set to 0 around every step.

    It does not refer to the optimiser whose hooks it serves, so it ends with it.

    Args:
        weights: The weights; all alive at first.

    Attributes:
        alive: 1 where a weight is alive and 0 where it is dead, in the dtype of the weights.
        bits: All bits of a live weight and none of a dead one, as integers.
        violation: Sum of the sizes of dead weights over all checks.
        steps: Steps since the last check.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = list(weights)
        # in the memory format of the weights, or multiplying them is many times slower; and in the
        # same memory after every move of the mask, where a recorded step reads them
        self.alive = [torch.ones_like(w, requires_grad=False) for w in weights]
        self.bits = [torch.full_like(w, -1, dtype=INTEGERS.get(w.itemsize)) for w in weights]
        self.violation = torch.zeros((), device=weights[0].device if weights else None)
        self.steps = 0

    @torch.no_grad()
    def set_alive(self, masks: Iterable[Tensor]) -> None:
        """Set which weights are alive."""
        for alive, bits, mask in zip(self.alive, self.bits, masks, strict=True):
            alive.copy_(mask)
            bits.copy_(mask).neg_()

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Set the dead weights to 0."""
        self._follow()
        if self.weights:
            torch._foreach_mul_(self.weights, self.alive)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Set the gradients of dead weights to 0; sparse ones are left as they are."""
        self._follow()
        pairs = [(w.grad, alive) for w, alive in zip(self.weights, self.alive, strict=True)]
        dense = [(g, a) for g, a in pairs if g is not None and g.layout == torch.strided]
        if dense:
            torch._foreach_mul_(*zip(*dense, strict=True))

    @torch.no_grad()
    def mask_states(self, optimiser: torch.optim.Optimizer) -> None:
        """Set the optimiser's state of dead weights to 0 where it is elementwise."""
        for weight, alive in zip(self.weights, self.alive, strict=True):
            for state in optimiser.state.get(weight, {}).values():
                if isinstance(state, Tensor) and state.shape == weight.shape:
                    state.mul_(alive)

    def before_step(self, _: Any, arguments: Any, keywords: Any) -> tuple[Any, Any]:
        """Mask the gradients; return the arguments of the step with masked closures."""
        if self.steps % CHECK_EVERY == 0:
            self.check()
        self.steps += 1
        self.mask_gradients()
        optimiser, *others = arguments
        keywords = {key: self._masked(value) for key, value in keywords.items()}
        return (optimiser, *map(self._masked, others)), keywords

    def after_step(self, *_: Any) -> None:
        """Mask the weights."""
        self.mask_weights()

    @torch.no_grad()
    def check(self) -> None:
        """Add up the dead weights that are not 0; the device is not waited for."""
        self._follow()
        if self.weights:
            moved = torch._foreach_sub(self.weights, torch._foreach_mul(self.weights, self.alive))
            for total in torch._foreach_norm(moved, ord=1):
                self.violation += total.to(self.violation.device)

    def read_violation(self) -> float:
        """Check now, and return the sum over all checks since the last call."""
        self.check()
        total = float(self.violation)
        self.violation.zero_()
        return total

    def _follow(self) -> None:
        """Follow a network that was moved to another device or dtype."""
        pairs = list(zip(self.alive, self.weights, strict=True))
        if any(a.device != w.device or a.dtype != w.dtype for a, w in pairs):
            self.alive = [a.to(w.device, w.dtype) for a, w in pairs]

    def _masked(self, argument: Any) -> Any:
        """Return a closure that runs with masked weights, and masks its gradients."""
        if not callable(argument):
            return argument

        def closure(*arguments: Any, **keywords: Any) -> Any:
            self.mask_weights()
            loss = argument(*arguments, **keywords)
            self.mask_gradients()
            return loss

        return closure


HELD: weakref.WeakKeyDictionary[torch.optim.Optimizer, Callable[[], object]]
HELD = weakref.WeakKeyDictionary()  # what ends the present mask of an optimiser


def hold(
    optimiser: torch.optim.Optimizer, weights: Sequence[Tensor], *, backward: bool
) -> MaskedWeights:
    """Let the hooks of an optimiser and of its weights hold a mask, in place of an earlier one.

    Args:
        optimiser: The optimiser.
        weights: The weights that the mask covers.
        backward: Also mask the gradients that backward passes leave.
    """
    HELD.pop(optimiser, lambda: None)()
    masked_weights = MaskedWeights(weights)
    if not weights:
        return masked_weights
    handles = [
        optimiser.register_step_pre_hook(masked_weights.before_step),
        optimiser.register_step_post_hook(masked_weights.after_step),
        optimiser.register_load_state_dict_post_hook(masked_weights.mask_states),
    ]
    for weight, bits in zip(weights, masked_weights.bits, strict=True):
        if backward and weight.requires_grad and weight.is_floating_point():
            hook = partial(_mask_gradient, bits)
            handles.append(weight.register_post_accumulate_grad_hook(hook))
    HELD[optimiser] = weakref.finalize(masked_weights, _remove, handles)
    return masked_weights


def check_optimiser(optimiser: Any, net: nn.Module, weights: Sequence[Tensor]) -> None:
    """Raise ValueError if an optimiser would move these weights of a network past its hooks."""
    if not weights:
        return
    if not getattr(getattr(type(optimiser), "step", None), "hooked", False):
        raise ValueError(
            f"a {type(optimiser).__name__} runs no hooks around its steps, so no mask can be held; "
            "give the torch.optim.Optimizer inside it, before it is wrapped"
        )
    parts = {id(p) for group in optimiser.param_groups for p in group["params"]}
    others = parts - {id(p) for p in net.parameters()}
    if others and not any(id(w) in parts for w in weights):
        raise ValueError(
            f"the optimiser has none of the {len(weights)} weights of the mask, but {len(others)} "
            "tensors that are not of this net, such as copies; build it from net.parameters()"
        )


def _mask_gradient(bits: Tensor, weight: Tensor) -> None:
    """Set the gradient of dead weights to 0 by their bits, since 0 times nan is nan."""
    gradient = weight.grad
    if gradient is not None and gradient.layout == torch.strided:
        bits = bits.to(gradient.device, INTEGERS[gradient.itemsize])  # if the net was moved
        gradient.detach().view(bits.dtype).bitwise_and_(bits)


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()
