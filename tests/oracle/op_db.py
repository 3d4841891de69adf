"""Curvature through PyTorch's own database of operators, against finite differences.

PyTorch tests its operators on samples of inputs (`op_db`). Each sample becomes a small net: a
weight feeds every input that can be differentiated, and the loss is smooth in all outputs. Then the
gradient, the tape and `Curvature` are compared with differences of the loss and of the gradient.
`make autograd` does all of them; `test_op_db.py` does a few within `make test`.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sparsediag import Curvature, Problem
from sparsediag.core.process import configure_process
from sparsediag.core.twice_differentiable import twice_differentiable
from sparsediag.curvature.tape import Tape
from tests.bench import results

VERDICTS = {
    "agreed": "tape, `Curvature` and differences agree to 1e-6",
    "falls back": "the tape refuses; `Curvature` and differences agree to 1e-6",
    "doubted": "differences disagree with autograd, and `Curvature.doubts` says so",
    "refused": "one line says why there is no product",
    "not finite": "the product is NaN or infinite, so no wrong number can be read",
    "unclear": "at a kink, a pole or in lower precision differences cannot tell",
    "WRONG": "differences disagree, and nothing says so",
    "TRACEBACK": "another error than a ValueError",
}
FAULTS = ("WRONG", "TRACEBACK")
CLOSE = 1e-6
STEPS = (1e-4, 1e-5, 1e-6, 1e-3, 1e-7)
LARGEST = 1000  # weights
DTYPES = (torch.float64, torch.complex128)


@contextmanager
def database() -> Iterator[list[Any]]:
    """Import the database and undo what its import changes in torch."""
    functions = (torch._C.ScriptFunction, torch._C.ScriptMethod)
    before = [f.__call__ for f in functions]
    flag = "__allow_nonbracketed_mutation_flag"  # False makes flags of torch.backends read-only
    allowed = getattr(torch.backends.m, flag)
    try:
        from torch.testing._internal.common_methods_invocations import op_db

        yield op_db
    finally:
        setattr(torch.backends.m, flag, allowed)
        for function, call in zip(functions, before, strict=True):
            function.__call__ = call


class OperatorNet(nn.Module):
    """An operator on a sample of its inputs, those with `requires_grad` as weights.

    Outputs are divided by 1 + their size at the start, and complex tensors are seen as real ones.
    """

    def __init__(self, operator: Any, function: Callable[..., Any], sample: Any) -> None:
        super().__init__()
        self.operator, self.function, self.sample = operator, function, sample
        parts = (sample.input, sample.args, sample.kwargs)
        self.arguments, self.spec = pytree.tree_flatten(parts)
        self.moving = [
            i
            for i, a in enumerate(self.arguments)
            if isinstance(a, Tensor) and a.requires_grad and a.layout is torch.strided
        ]
        self.arguments = [a.detach() if isinstance(a, Tensor) else a for a in self.arguments]
        starts = [_real(self.arguments[i].clone()) for i in self.moving]
        self.weights = nn.ParameterList(starts)
        self.scales: list[Tensor] = []
        with torch.enable_grad():
            outputs = self._call()
        self.lower_precision = not {o.dtype for o in outputs} <= set(DTYPES)
        self.used = [o.requires_grad for o in outputs]  # autograd takes the others for constants
        self.scales = [1 + _real(o).detach().abs().double() for o in outputs]

    def forward(self, x: Tensor) -> Tensor:
        rows = zip(self._call(), self.scales, self.used, strict=True)
        outputs = [(_real(o).double() / scale).reshape(-1) for o, scale, used in rows if used]
        return torch.cat(outputs)[None] * x

    def _call(self) -> list[Tensor]:
        arguments = [a.clone() if isinstance(a, Tensor) else a for a in self.arguments]
        for i, w in zip(self.moving, self.weights, strict=True):
            w = w * 1
            arguments[i] = torch.view_as_complex(w) * 1 if arguments[i].is_complex() else w
        first, args, kwargs = pytree.tree_unflatten(arguments, self.spec)
        outputs = self.operator.gradcheck_wrapper(self.function, first, *args, **kwargs)
        outputs = self.sample.output_process_fn_grad(outputs)
        return [
            o
            for o in pytree.tree_leaves(outputs)
            if isinstance(o, Tensor) and (o.is_floating_point() or o.is_complex()) and o.numel()
        ]


def _real(t: Tensor) -> Tensor:
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


def _loss(outputs: Tensor, _: Any) -> Tensor:
    gains = torch.linspace(0.5, 1.5, outputs.numel(), dtype=outputs.dtype)
    return (torch.sin(gains * outputs) + 0.3 * gains * outputs).mean()


@dataclass(frozen=True)
class Row:
    """What one sample of an operator gave."""

    operator: str
    sample: str
    verdict: str
    reason: str = ""


def nets(operator: Any, dtype: torch.dtype, limit: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Return up to `limit` samples, evenly over all, also of the form that works in place."""
    samples = list(operator.sample_inputs("cpu", dtype, requires_grad=True))
    count = min(limit, len(samples))
    last = len(samples) - 1
    for i in sorted({round(k * last / max(1, count - 1)) for k in range(count)}):
        for form, function in ((name(operator), operator.op), ("", operator.inplace_variant)):
            if function is not None:
                label = f"{i} {str(dtype).removeprefix('torch.')}{'' if form else ' in place'}"
                sample = samples[i]
                yield label, lambda f=function, s=sample: OperatorNet(operator, f, s)


def name(operator: Any) -> str:
    return ".".join(filter(None, (operator.name, operator.variant_test_name)))


def judge(make: Callable[[], OperatorNet]) -> tuple[str, str] | None:
    """Return a verdict and its reason, or None if the sample is not a differentiable net."""
    try:
        net = make()
    except Exception:  # this form of the operator does not take this sample
        return None
    weights = torch.cat([w.detach().reshape(-1) for w in [*net.weights, torch.zeros(0)]])
    if not any(net.used) or not weights.numel() or not weights.isfinite().all():
        return None
    if weights.numel() > LARGEST:
        return None
    one = torch.ones(1, 1, dtype=torch.float64)
    try:
        problem = Problem(net, [(one, one)], loss=_loss)
        curvature = Curvature(problem)
        return _compare(net, problem, curvature)
    except ValueError as error:
        return "refused", _line(error)
    except Exception as error:
        return "TRACEBACK", _line(error)


def _compare(net: OperatorNet, problem: Problem, curvature: Curvature) -> tuple[str, str]:
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(problem.size, generator=generator, dtype=torch.float64)
    direction *= problem.weights.abs().clamp(min=0.1)
    gradient, product = problem.gradient(), curvature(direction)
    if not (gradient.isfinite().all() and product.isfinite().all()):
        return "not finite", "; ".join(curvature.doubts)
    tape = _tape_product(problem, direction)
    if isinstance(tape, Tensor) and _error(tape, product) > CLOSE and not curvature.doubts:
        return "WRONG", f"the tape is off by {_error(tape, product):.0e}"
    if net.lower_precision:
        return "unclear", "lower precision"
    value = _check(
        lambda w: torch.tensor([problem.value(w)], dtype=torch.float64),
        problem.weights,
        direction,
        (gradient @ direction)[None],
    )
    slope = _check(problem.gradient, problem.weights, direction, product)
    if "differs" in (value, slope):
        wrong = "product" if value != "differs" else "gradient"
        return ("doubted" if curvature.doubts else "WRONG"), f"{wrong} of autograd"
    if "unclear" in (value, slope):
        return "unclear", "kink or pole"
    return ("agreed", "") if isinstance(tape, Tensor) else ("falls back", tape)


def _tape_product(problem: Problem, direction: Tensor) -> Tensor | str:
    """Return the product by a tape, or its reason not to give one."""
    weights, directions = (list(problem.split(v).values()) for v in (problem.weights, direction))
    try:
        with problem.evaluation_mode(), twice_differentiable():
            tape = Tape(problem.batch_loss(problem.batches[0]), weights)
            return problem.flatten(tape.product(directions))
    except Exception as error:
        return _line(error)


def _check(
    function: Callable[[Tensor], Tensor], weights: Tensor, direction: Tensor, claimed: Tensor
) -> str:
    """Compare a claimed derivative along a direction with central differences of several steps.

    "agrees" if one is close to the claim; "differs" if two steps agree with each other and not
    with the claim, and the function has no kink between their ends; else "unclear".
    """
    middle, slopes, bends = function(weights), [], []
    for h in STEPS:
        try:
            above, below = function(weights + h * direction), function(weights - h * direction)
        except RuntimeError:  # the step leaves the domain
            continue
        slope = (above - below) / (2 * h)
        if not slope.isfinite().all():
            continue
        if _error(claimed, slope) <= CLOSE:
            return "agrees"
        slopes.append(slope)
        bends.append(float((above - 2 * middle + below).norm() / (above - below).norm()))
    pairs = zip(slopes, slopes[1:], bends[1:])  # noqa: B905
    sure = (
        _error(claimed, b) > 100 * max(_error(a, b), CLOSE) and bend < 0.01 for a, b, bend in pairs
    )
    return "differs" if any(sure) else "unclear"


def _error(a: Tensor, b: Tensor) -> float:
    size = max(float(a.norm()), float(b.norm()))
    return float((a - b).norm()) / size if size else 0.0


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:150]


def sweep(
    names: Collection[str] = (), limit: int = 2, dtypes: Sequence[torch.dtype] = DTYPES
) -> list[Row]:
    """Return a row for every sample of the operators, of all if none is named."""
    rows = []
    with database() as operators, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from within torch, and of what a sample does
        for operator in operators:
            if not operator.supports_autograd or (names and name(operator) not in names):
                continue
            for dtype in dtypes:
                if not operator.supports_dtype(dtype, "cpu"):
                    continue
                for sample, make in nets(operator, dtype, limit):
                    if verdict := judge(make):
                        rows.append(Row(name(operator), sample, *verdict))
    return rows


def section(rows: Sequence[Row]) -> list[str]:
    """Return the table of verdicts, and the operators that did not simply agree."""
    counts = Counter(row.verdict for row in rows)
    operators = {v: {row.operator for row in rows if row.verdict == v} for v in VERDICTS}
    lines = [
        f"{len({row.operator for row in rows})} operators of torch's `op_db`, {len(rows)} samples "
        "(float64 and complex128, out of place and in place).",
        "",
        "| verdict | samples | operators | meaning |",
        "| --- | --- | --- | --- |",
        *(f"| {v} | {counts[v]} | {len(operators[v])} | {VERDICTS[v]} |" for v in VERDICTS),
        "",
    ]
    for verdict in VERDICTS:
        if verdict != "agreed" and operators[verdict]:
            reasons = defaultdict(set)
            for row in rows:
                if row.verdict == verdict:
                    reasons[row.reason].add(f"`{row.operator}`")
            lines += [f"{verdict}:", ""]
            lines += [f"- {r or '-'}: {', '.join(sorted(reasons[r]))}" for r in sorted(reasons)]
            lines += [""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.op_db", allow_abbrev=False)
    parser.add_argument("names", nargs="*", help="operators (default: all, into RESULTS.md)")
    parser.add_argument("--samples", type=int, default=2, help="at most, for each operator")
    options = parser.parse_args()
    configure_process()
    rows = sweep(options.names, options.samples)
    for row in rows:
        if options.names or row.verdict in FAULTS:
            print(row.operator, row.sample, row.verdict, row.reason, sep=" | ")
    lines = section(rows)
    if not options.names:
        device = torch.device("cpu")
        results.write("autograd", [f"Measured on {results.hardware(device)}.", "", *lines])
    print(*lines, sep="\n")
    sys.exit(any(row.verdict in FAULTS for row in rows))


if __name__ == "__main__":
    main()
