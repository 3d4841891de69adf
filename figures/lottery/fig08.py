"""Lottery, Figure 8: the tweaks with and without rewinding.

Test accuracy of ResNet-18 on CIFAR-100 over rounds 1 to 16 of a fifth each, for tickets that start
from their initialisation or from epoch 33 of 180 of the dense training. The paper's claim: tweaks
and rewinding together are best, about 2 points above the dense net at nearly every sparsity.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from figures import accuracy, effect_sizes
from figures.claims import Claim
from figures.lottery import _ladders
from figures.lottery._runs import LEVELS, run
from figures.measurement import Need
from figures.scales import Scale
from sparsediag.plotting import style

SEEDS = 1
TWEAKS = ("AT", "TRT", "AT+TRT")
NEEDS = {
    (kind + _ladders.REWOUND * rewound, density, seed): Need(
        run(kind, density, seed, rewound=rewound)
    )
    for kind in ("vanilla", *TWEAKS)
    for rewound in (False, True)
    for density in (*((1,) if kind == "vanilla" and not rewound else ()), *LEVELS.values())
    for seed in range(3)
}
ABOVE_DENSE = 2.0  # points, with AT+TRT and rewinding; section 4.5


def above_dense(results: _ladders.Results) -> list[float]:
    """AT+TRT with rewinding over the dense net, a number a seed: the mean over sparsities."""
    dense = accuracy.seeds(results, "vanilla", 1)
    levels = [accuracy.seeds(results, "AT+TRT, rewound", d) for d in LEVELS.values()]
    found = [level for level in levels if level]
    common = set(dense).intersection(*found) if found else set()
    return [effect_sizes.mean(*(level[s] for level in found)) - dense[s] for s in sorted(common)]


def flatter(results: _ladders.Results) -> list[float]:
    """Return how much less AT+TRT with rewinding loses than vanilla over the ladder, by seed."""
    kinds = ("AT+TRT, rewound", "vanilla")
    common = [d for d in LEVELS.values() if all(accuracy.seeds(results, k, d) for k in kinds)]
    if len(common) < 2:
        return []
    ends = [effect_sizes.gain(*kinds, share) for share in (min(common), max(common))]
    return list(effect_sizes.joined(effect_sizes.less, *ends)(results))


def _over_rewinding(kind: str) -> effect_sizes.Margin:
    return effect_sizes.gain(f"{kind}, rewound", "vanilla, rewound", *LEVELS.values())


CLAIMS = (
    Claim(
        says="With AT+TRT and rewinding tickets are better than the dense net",
        quote="Overall performance is around > 2.0% than the dense network for almost all sparsity "
        "levels",
        source="section 4.5",
        margin=above_dense,
        paper=ABOVE_DENSE,
        room=effect_sizes.room("vanilla", 1),
    ),
    Claim(
        says="With AT+TRT and rewinding accuracy falls less with sparsity than without them",
        quote="The performance of subnetworks does not vary much with increase in compression "
        "level",
        source="section 4.5",
        margin=flatter,
    ),
    Claim(
        says="TRT adds to rewinding",
        quote="TRT + rewinding performs significantly better than rewinding",
        source="section 4.5",
        margin=_over_rewinding("TRT"),
    ),
    Claim(
        says="TRT adds more to rewinding than AT does",
        quote="marginally better than rewinding, but TRT + rewinding performs significantly better "
        "than rewinding",
        source="section 4.5",
        margin=effect_sizes.joined(
            effect_sizes.less, _over_rewinding("TRT"), _over_rewinding("AT")
        ),
    ),
    Claim(
        says="AT+TRT and rewinding together are better than either",
        quote="State-of-the-art results are obtained for sparse retraining when our approaches are "
        "combined with rewinding",
        source="caption",
        margin=effect_sizes.joined(
            min,
            _over_rewinding("AT+TRT"),
            effect_sizes.gain("AT+TRT, rewound", "AT+TRT", *LEVELS.values()),
        ),
    ),
)


def draw(results: dict[tuple[str, float, int], Any], scale: Scale) -> Figure:
    """A panel a group of tweaks, with plain tickets in each; the dashed line is the dense net."""
    fig = style.new_figure(style.PAGE, 2.7)
    for ax, tweak in zip(fig.subplots(1, 3, sharey=True), TWEAKS, strict=True):
        kinds = [kind + word for kind in ("vanilla", tweak) for word in ("", _ladders.REWOUND)]
        shown = {kind: kind for kind in kinds}
        _ladders.panel(ax, results, shown, title=tweak, dense=("vanilla",), inches=1.9)
    for ax in fig.axes[1:]:
        ax.set_ylabel("")
    _ladders.legend(fig)
    return fig
