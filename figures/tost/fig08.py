"""ToST, Figure 8: the test loss along the top Hessian eigenvector of the training loss.

ResNet-18 on CIFAR-100, a lottery ticket of 90 % sparsity. The paper's claim: around the minimum
that each tweak finds, the loss rises less. Distances are Euclidean, and LRsI changes the length of
the weights. Tools that know of no mask move dead weights too, which no sparse net can; so on the
right, the top eigenvalue over the live weights beside that over all of them, which is never less.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.claims import Claim, Results
from figures.measurement import Need
from figures.scales import Scale
from figures.tost._runs import SINGLE, run
from sparsediag.plotting import style

KINDS = ("base", *SINGLE, "ToST")
LINES = dict(zip(KINDS, ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), ":", "-"), strict=True))
COLOURS = {kind: style.COLOUR_OF["sparse" if kind == "base" else kind] for kind in KINDS}
VIEWS = {"live": (("top", 1),), "dense": (("top", 1), ("dense", True))}
NEEDS = {("curve", k, s): Need.top_curve(run(k, 0.1, s)) for k in KINDS for s in range(3)} | {
    (view, kind, seed): Need(run(kind, 0.1, seed), "spectrum", options=options)
    for view, options in VIEWS.items()
    for kind in ("base", "ToST")
    for seed in range(3)
}


def changes(results: Results, kind: str) -> dict[int, np.ndarray]:
    """Change of the test loss along the eigenvector, by seed."""
    return {
        seed: np.where(np.isfinite(found.loss[0]), found.loss[0], np.nan) - found.centre
        for (what, of, seed), found in results.items()
        if what == "curve" and of == kind
    }


def flatter(results: Results, kind: str) -> list[float]:
    """Return how much less the loss rises than around the plain net, by seed."""
    plain, tweaked = changes(results, "base"), changes(results, kind)
    common = sorted(set(plain) & set(tweaked))
    return [float(np.mean(plain[seed]) - np.mean(tweaked[seed])) for seed in common]


def _claim(kind: str) -> Claim:
    return Claim(
        says=f"Along the top eigenvector the test loss rises less with {kind}",
        quote="Our methods present better weight smoothness around the achieved local minima",
        source="section 4.2",
        margin=lambda results: flatter(results, kind),
        unit="nats",
    )


CLAIMS = tuple(_claim(kind) for kind in KINDS[1:])


def draw(results: Results, scale: Scale) -> Figure:
    """Change of the test loss over the distance, mean and range of the seeds; the eigenvalues."""
    fig = style.new_figure(style.PAGE, 2.4)
    left, right = fig.subplots(1, 2, width_ratios=(2, 1))
    for kind in KINDS:
        if found := changes(results, kind):
            x = next(r.distance for key, r in results.items() if key[:2] == ("curve", kind))
            curves = np.stack(list(found.values()))
            label = "plain sparse" if kind == "base" else kind
            left.plot(x, curves.mean(0), color=COLOURS[kind], ls=LINES[kind], label=label)
            if len(curves) > 1:
                band = (curves.min(0), curves.max(0))
                left.fill_between(x, *band, color=COLOURS[kind], alpha=0.12, lw=0)
    left.set(xlabel="distance along the top eigenvector", ylabel="change of the test loss")
    if left.lines:
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=6, columnspacing=1.2)
    _eigenvalues(right, results)
    return fig


def _eigenvalues(ax: Axes, results: Results) -> None:
    """A point a seed, live and dense coordinates side by side."""
    kinds = ("base", "ToST")
    marks = {"live": ("o", -0.12, "live weights"), "dense": ("s", 0.12, "dead ones too")}
    for view, (marker, shift, label) in marks.items():
        points = [
            (kinds.index(kind) + shift + 0.04 * (seed - 1), found.eigenvalues[0], COLOURS[kind])
            for (what, kind, seed), found in results.items()
            if what == view
        ]
        for x, value, colour in points:
            face = colour if view == "live" else "white"
            ax.plot(x, value, marker, color=colour, markerfacecolor=face, markersize=4)
        face = "black" if view == "live" else "white"
        ax.plot([], [], marker, color="black", markerfacecolor=face, markersize=4, label=label)
    ax.set_xticks(range(2), ["plain sparse", "ToST"])
    ax.set(xlim=(-0.5, 1.5), ylabel="top Hessian eigenvalue", yscale="log")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
