"""Watch: the diagnostics inside a training loop, as rows of numbers."""

from __future__ import annotations

import json
import logging
import math
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from sparsediag.core.errors import unknown_name
from sparsediag.core.evaluation import is_compiled
from sparsediag.core.losses import default_loss
from sparsediag.core.mask import Mask
from sparsediag.core.problem import Loss, Problem
from sparsediag.core.prunable import pruned_in_passes
from sparsediag.core.validation import check_differentiable, check_types, unwrap
from sparsediag.core.version import __version__
from sparsediag.watch import metrics as training_metrics
from sparsediag.watch import probe as probe_metrics
from sparsediag.watch.collect import (
    ActivationCounter,
    GradientReader,
    check_whole,
    find_optimizers,
    learning_rates,
    trained_weights,
)
from sparsediag.watch.metrics import Moment
from sparsediag.watch.processes import gather, is_first_process, merge

Row = dict[str, Any]
TRAINING: dict[str, Callable[[Moment], Row]] = {
    name: getattr(training_metrics, name)
    for name in ("activations", "gradient", "update", "mask", "noise")
}
PROBE: dict[str, Callable[[Moment], Row]] = {
    name: getattr(probe_metrics, name)
    for name in (
        "probe_loss",
        "probe_activations",
        "probe_gradient",
        "eigenvalue",
        "update_curvature",
        "critical_sharpness",
    )
}
METRICS = TRAINING | PROBE
WINDOW = 0.02  # share of the steps whose activations count

logger = logging.getLogger("sparsediag.watch")


class Watch:
    """Measure a network while it trains: a row of numbers every few steps.

    Call `step` after each step of the optimizer. It changes nothing: the training ends with the
    same weights, buffers and random numbers as without it. Nor can it stop a training: what fails
    is left out of the row, and logged once. `close`, or a `with` block, removes all hooks.

    Names of metrics, and what they enter into a row ("/name" is a module):

    - "activations": `zeros`, `dead`, `zeros/name`, `dead/name`: shares of zero activations and of
      dead units in the last steps before the row, 2 % of all (see `sd.activations`).
    - "gradient": `live`, `dead`, `regrown`: its norm on these weights, as the optimizer gets it;
      `flow`: the effective gradient flow (see `sd.gradflow`).
    - "update": `kept`, `regrown`: |change in the step| / |weight|.
    - "mask": `density`; `turnover`, the share of live weights that were dead at the last row;
      `survival`, the share of the first mask that is still alive; `dead_not_zero`, the number of
      dead weights that are not 0.
    - "noise": `scale`, the gradient noise scale in samples (McCandlish et al., 2018), from the
      gradients of two consecutive steps.
    - On the probe batch, in evaluation mode: "probe_loss"; "probe_activations"; "probe_gradient";
      "eigenvalue", the top ones in live coordinates with their residuals; "update_curvature",
      u'Hu / u'u for the last update u; "critical_sharpness", 2 / (smallest learning rate at which
      the last update would have raised the loss) (Kalra et al., 2026), `step` in units of it.

    The name of a number that did not converge ends in `_not_converged`. Regrown weights are alive
    and were dead at the row before; kept ones were alive.

    Args:
        net: The network, wrapped or not (`torch.compile`, DistributedDataParallel).
        mask: The live weights; for a mask that moves, a function that returns the present one. By
            default that of `torch.nn.utils.prune`, if it prunes the network.
        optimizer: The optimizer, or a list: for the learning rate, and for gradients that the loop
            sets to zero before `step`.
        probe: Batches (inputs, targets) for the metrics on a probe; without any, there are none.
        every: Steps between two rows.
        log: Function that is called with every row, such as `wandb.log`.
        metrics: Names, in a list or separated by commas (default: all that are possible).
        modules: Globs of modules whose activations have entries of their own ("layer*,fc").
        loss: Loss on the probe, as for `Problem`.
        top: Number of eigenvalues.
        file: File of JSON lines that rows are added to; None for no file.

    Attributes:
        steps: Number of steps so far; set it to go on counting where a training resumes.

    Raises:
        ValueError: If an argument is invalid, or the probe does not fit the network.

    >>> net = nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with Watch(net, optimizer=optimizer, every=2, metrics="update", file=None) as watch:
    ...     for _ in range(4):
    ...         loss = net(torch.ones(8, 3)).square().mean()
    ...         loss.backward()
    ...         optimizer.step()
    ...         row = watch.step(loss)
    >>> list(row)
    ['step', 'loss', 'lr', 'update/kept', 'watch_seconds']
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        mask: Mask | Callable[[], Mask | None] | None = None,
        optimizer: Any = None,
        probe: Iterable[Any] | None = None,
        every: int = 100,
        log: Callable[[dict[str, Any]], object] | None = None,
        metrics: str | Iterable[str] | None = None,
        modules: str | None = None,
        loss: Loss = default_loss,
        top: int = 1,
        file: str | Path | None = "watch.jsonl",
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every={every!r}: need a number of steps, 1 or more")
        if mask is None and any(pruned_in_passes(unwrap(net))):
            mask = partial(_mask_of_hooks, unwrap(net))
        current = mask if isinstance(mask, Mask) or not callable(mask) else mask()
        check_types(net, current, loss)
        self.net, self.wrapped, self._given_mask = unwrap(net), net, mask
        check_whole(self.net)
        self.every, self.log, self.top, self._steps = every, log, top, 0
        self.file = None if file is None else Path(file)
        self.metrics = choose_metrics(metrics, mask=mask is not None, probe=probe is not None)
        self.mask = self.first_mask = self._mask_before = self._named(current)
        check_differentiable(self.net, self.mask)
        self._latest = current, self.mask
        self.optimizers = [] if optimizer is None else find_optimizers(optimizer)
        self._trained = _shapes(trained_weights(self.net))
        self._has_header = False
        self._told: set[str] = set()
        self._memory: dict[str, Any] = {}
        self._problem: Problem | None = None
        if probe is not None and PROBE.keys() & set(self.metrics):
            self._problem = Problem(self.net, probe, loss=loss, mask=self.mask)
            if not 1 <= top <= self._problem.size:
                raise ValueError(f"top={top}: need 1 to {self._problem.size} eigenvalues")
        self._gradients: deque[dict[str, Tensor]] = deque(maxlen=2)
        self._before: dict[str, Tensor] = {}
        report = _call_weakly(self._fail)
        self._reader = GradientReader(self.net, self.optimizers, report)
        self._counter = ActivationCounter(self.net, modules, report)
        if "noise" in self.metrics and any(
            isinstance(o, torch.optim.LBFGS) for o in self.optimizers
        ):
            self._note(
                "noise", "LBFGS computes several gradients in a step; `gradient` is the last"
            )
            self.metrics.remove("noise")
        self._close = weakref.finalize(self, _remove, self._counter, self._reader)
        self._prepare()

    def step(self, loss: Tensor | float | None = None, **extra: float) -> Row | None:
        """Count a step of the training, and measure if a row is due.

        Args:
            loss: The loss of the step.
            extra: Further entries of the row, such as `epoch`.

        Returns:
            The row; None if none is due, and on all processes but the first.
        """
        row = None
        if self._close.alive:
            self._steps += 1
            with self._told_failure("watch"):
                self._collect()
                if self.steps % self.every == 0:
                    row = self._measure(loss, extra)
            with self._told_failure("watch"):
                self._prepare()
        return row

    def __call__(self, *_: Any) -> None:
        """Count a step: `optimizer.register_step_post_hook(watch)` calls this."""
        self.step()

    @property
    def steps(self) -> int:
        """Number of steps so far."""
        return self._steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self._counter.end()
        self._steps = steps
        self._prepare()

    @property
    def collecting(self) -> bool:
        """True if the next step is looked at, so that it must not be replayed from a CUDA graph."""
        return self._close.alive and self._steps_left() < max(2, self._window())

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep for the same rows after resuming.

        An eigenvalue is found again from the start, so it is the same up to its residual.
        """
        masks = {"mask": self.mask, "first_mask": self.first_mask}
        memory = {key: value for key, value in self._memory.items() if key != "spectrum"}
        packed = {name: mask and mask.pack() for name, mask in masks.items()}
        return {"steps": self.steps, "memory": memory, **packed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; call it before the first step.

        A file that is there already goes on without another header.
        """
        masks = [state[name] and Mask.unpack(state[name]) for name in ("mask", "first_mask")]
        self.mask, self.first_mask = map(self._named, masks)
        self.steps, self._memory = state["steps"], dict(state["memory"])
        self._has_header = self.file is not None and self.file.exists()

    def close(self) -> None:
        """Remove all hooks; later steps do nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        """Begin or end what the next step collects."""
        left, wanted = self._steps_left(), set(self.metrics)
        self._reader.due, self._reader.rates = not left, {}
        self._reader.active = left < (2 if "noise" in wanted else "gradient" in wanted)
        if not self._reader.active:
            self._gradients.clear()
        self._before = {}
        if not left:
            self._mask_before = self._present_mask()
        if not left and wanted & {"update", "update_curvature", "critical_sharpness"}:
            weights = trained_weights(self.net)
            self._before = {name: p.detach().clone() for name, p in weights.items()}
        if left + 1 == self._window() and wanted & {"activations", "noise"}:
            if not is_compiled(self.wrapped):
                self._counter.begin(observing="activations" in wanted)
            elif "activations" in wanted:
                self._note("activations", "a compiled net runs no hooks; see probe_activations")

    def _steps_left(self) -> int:
        """Return the number of steps that follow the next one, up to a row."""
        return -(self.steps + 1) % self.every

    def _window(self) -> int:
        """Return the number of steps before a row whose activations count."""
        return max(1, round(WINDOW * self.every))

    def _collect(self) -> None:
        """Keep the gradients of this step, as far as its optimizers did not hand them over."""
        if self._reader.active:
            self._reader.read()
            self._gradients.append(self._reader.gradients)
            self._reader.gradients = {}
        self._counter.pass_stack.close()  # of a pass that was interrupted
        self._counter.part.steps += 1

    def _measure(self, loss: Tensor | float | None, extra: dict[str, float]) -> Row | None:
        """Make a row, write it, and hand it to `log`."""
        began = time.perf_counter()
        part = self._counter.end()
        with self._told_failure("loss"):
            part.loss = None if loss is None else float(_number(loss))
        parts = gather(part, self.wrapped)  # what may fail in one process alone comes after it
        previous, self.mask = self.mask, self._present_mask()
        self.first_mask = self.first_mask or self.mask
        if not is_first_process():
            return None
        part = merge(parts)
        row: Row = {"step": self.steps}
        row |= {name: _number(value) for name, value in extra.items()}
        row |= {} if part.loss is None else {"loss": part.loss}
        rates = [
            self._reader.rates.get(i, learning_rates(o)) for i, o in enumerate(self.optimizers)
        ]
        row |= {"lr" if len(rates) == 1 else f"lr/{i}": r[0] for i, r in enumerate(rates) if r}
        different = {rate for several in rates for rate in several}
        moment = Moment(
            net=self.net,
            mask=self.mask,
            previous_mask=previous,
            mask_before=self._mask_before,
            first_mask=self.first_mask,
            gradients=list(self._gradients),
            before=self._before,
            counts=part.counts,
            default=self._counter.default,
            chosen=self._counter.chosen,
            samples=part.batch,
            rate=different.pop() if len(different) == 1 else None,
            problem=self._present_problem(),
            top=self.top,
            memory=self._memory,
            note=self._note,
        )
        for name in self.metrics:
            if name in TRAINING or moment.problem:
                with self._told_failure(name):
                    row |= METRICS[name](moment)
        row["watch_seconds"] = time.perf_counter() - began
        self._append(row)
        if self.log:
            with self._told_failure("log"):
                self.log(dict(row))
        return row

    def _present_mask(self) -> Mask | None:
        """Return the mask of this step, by the names of the net."""
        given = self._given_mask
        present = given if isinstance(given, Mask) or given is None else given()
        if present is not self._latest[0]:
            self._latest = present, self._named(present)
        return self._latest[1]

    def _named(self, mask: Mask | None) -> Mask | None:
        """Return a mask by the net's own names of its weights, on their device."""
        if mask is None:
            return None
        names = {id(p): name for name, p in self.net.named_parameters()}
        weights = mask.weights_of(self.net)
        return Mask({names[id(w)]: mask[name].to(w.device) for name, w in weights.items()})

    def _present_problem(self) -> Problem | None:
        """Return the loss on the probe batch at the present weights."""
        if self._problem is None:
            return None
        try:
            shapes = _shapes(trained_weights(self.net))
            if shapes != self._trained:  # some were frozen, released or replaced
                self._problem = self._problem.replace(net=self.net, mask=self.mask)
                self._trained = shapes
                self._memory.pop("spectrum", None)
            return self._problem.at_present(self.mask)
        except Exception as error:
            self._fail("probe", error)
            return None

    @contextmanager
    def _told_failure(self, metric: str) -> Iterator[None]:
        """Catch an error in the block, and tell it."""
        try:
            yield
        except Exception as error:
            self._fail(metric, error)

    def _fail(self, metric: str, error: Exception) -> None:
        """Tell once that a metric failed, and why."""
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        self._note(metric, f"{kind}{' '.join(str(error).split())[:300]}")

    def _note(self, metric: str, message: str) -> None:
        """Tell something about a metric, once, on stderr and in the file."""
        if metric in self._told:
            return
        self._told.add(metric)
        logger.warning("watch: %s at step %d: %s", metric, self.steps, message)
        if metric != "file" and is_first_process():
            self._append({"step": self.steps, "note": f"{metric}: {message}"})

    def _append(self, line: dict[str, Any]) -> None:
        """Add a line to the file; a header comes first."""
        if self.file is None:
            return
        lines = [line] if self._has_header else [self._header(), line]
        with self._told_failure("file"):
            text = "".join(json.dumps(_without_nan(part)) + "\n" for part in lines)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(text)
            self._has_header = True

    def _header(self) -> dict[str, Any]:
        """Return what the rows that follow are of."""
        return {
            "watch": 1,  # version of the format
            "net": type(self.net).__name__,
            "weights": sum(p.numel() for p in self.net.parameters()),
            "density": self.mask.density if self.mask else 1.0,
            "every": self.every,
            "metrics": self.metrics,
            "probe_samples": self._problem.samples if self._problem else 0,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "sparsediag": __version__,
            "torch": str(torch.__version__),
        }


def choose_metrics(chosen: str | Iterable[str] | None, *, mask: bool, probe: bool) -> list[str]:
    """Return the names of metrics, in the order of the tables."""
    possible = [
        name for name in METRICS if (name != "mask" or mask) and (name in TRAINING or probe)
    ]
    if chosen is None:
        return possible
    names = chosen.split(",") if isinstance(chosen, str) else list(chosen)
    for name in (names := [name.strip() for name in names]):
        if name not in METRICS:
            raise ValueError(unknown_name("metric", name, METRICS))
        if name not in possible:
            raise ValueError(f"metric '{name}' needs {'mask' if name == 'mask' else 'probe'}=")
    return [name for name in possible if name in names]


def _mask_of_hooks(net: nn.Module) -> Mask | None:
    """Return the mask that `torch.nn.utils.prune` holds in a net, by the names of its weights."""
    masks = {n: getattr(m, f"{weight}_mask").bool() for n, m, weight in pruned_in_passes(net)}
    return Mask(masks) if masks else None


def _shapes(weights: dict[str, nn.Parameter]) -> dict[str, torch.Size]:
    """Return the shape of each weight."""
    return {name: w.shape for name, w in weights.items()}


def _number(value: Any) -> Any:
    """Return a number of torch or numpy as one of Python, which JSON knows."""
    return value.item() if hasattr(value, "item") else value


def _without_nan(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line with None in place of numbers that are not finite, as JSON has none."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in line.items()
    }


def _call_weakly(method: Callable[[str, Exception], None]) -> Callable[[str, Exception], None]:
    """Return a function that calls a method as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call(metric: str, error: Exception) -> None:
        alive = reference()
        if alive is not None:
            alive(metric, error)

    return call


def _remove(counter: ActivationCounter, reader: GradientReader) -> None:
    """Remove all hooks."""
    counter.end()
    reader.end()
