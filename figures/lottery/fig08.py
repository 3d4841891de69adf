"""Lottery, Figure 8: the tweaks with and without rewinding.

Test accuracy of ResNet-18 on CIFAR-100 over rounds 1 to 16 of a fifth each, for tickets that start
from their initialisation or from epoch 33 of 180 of the dense training. The paper's claim: tweaks
and rewinding together are best, about 2 points above the dense network at almost every sparsity.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import accuracy, effect_sizes
from figures.claims import Claim
from figures.lottery import panels
from figures.lottery.runs import LEVELS, REWOUND, all_levels, rewound_levels
from figures.measurement import Results
from figures.scales import Scale
from sparsediag.plotting import style

TWEAKS = ("AT", "TRT", "AT+TRT")
MEASUREMENTS = all_levels(("vanilla", *TWEAKS)) | rewound_levels(("vanilla", *TWEAKS))
ABOVE_DENSE = 2.0  # points, with AT+TRT and rewinding; section 4.5


def above_dense(results: Results) -> dict[int, float]:
    """Return the gain of AT+TRT with rewinding over the dense network, the mean over sparsities."""
    dense = accuracy.by_seed(results, "vanilla", 1)
    levels = [accuracy.by_seed(results, "AT+TRT, rewound", d) for d in LEVELS.values()]
    return effect_sizes.mean_by_seed(
        [{s: level[s] - dense[s] for s in level.keys() & dense.keys()} for level in levels if level]
    )


CLAIMS = (
    Claim(
        says="With AT+TRT and rewinding, tickets are better than the dense network",
        quote="Overall performance is around > 2.0% than the dense network for almost all sparsity "
        "levels",
        source="section 4.5",
        margin=above_dense,
        paper=ABOVE_DENSE,
        max_gain=effect_sizes.max_gain("vanilla", 1),
    ),
    Claim(
        says="AT+TRT and rewinding together are better than either alone",
        quote="State-of-the-art results are obtained for sparse retraining when our approaches are "
        "combined with rewinding",
        source="caption",
        margin=effect_sizes.gain_over_best(
            "AT+TRT, rewound", ("AT+TRT", "vanilla, rewound"), *LEVELS.values()
        ),
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw a panel for each group of tweaks with plain tickets; the dashed line is dense."""
    fig = style.new_figure(style.PAGE, 2.7)
    for ax, tweak in zip(fig.subplots(1, 3, sharey=True), TWEAKS, strict=True):
        kinds = [kind + suffix for kind in ("vanilla", tweak) for suffix in ("", REWOUND)]
        panels.panel(ax, results, kinds, title=tweak, dense=("vanilla",), inches=1.9)
    for ax in fig.axes[1:]:
        ax.set_ylabel("")
    panels.legend(fig)
    return fig
