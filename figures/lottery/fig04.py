"""Lottery, Figure 4: the tweaks of the architecture (AT) and of the training (TRT) together.

Test accuracy of ResNet-18 on CIFAR-100 over rounds 1 to 16 of a fifth each: a) compared with plain
tickets, b) compared with plain tickets that are rewound to epoch 33 of 180. The paper's claim: AT
helps most at high sparsity and TRT at low sparsity, and together they win up to 91 %.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import effect_sizes
from figures.claims import Claim
from figures.lottery import panels
from figures.lottery.runs import LEVELS, REWOUND, all_levels, rewound_levels, run
from figures.measurement import Results, history_grid
from figures.scales import Scale
from sparsediag.plotting import style

PLAIN_REWOUND = "vanilla" + REWOUND
TWEAKS = ("AT", "TRT", "AT+TRT")
PANELS = {
    "a) tweaks alone and together": ("vanilla", *TWEAKS),
    "b) tweaks against rewinding": ("AT+TRT", PLAIN_REWOUND),
}
MEASUREMENTS = (
    all_levels(("vanilla", *TWEAKS))
    | history_grid(run, TWEAKS, (1,))
    | rewound_levels(("vanilla",))
)
CLAIMS = (
    Claim(
        says="AT+TRT improves a lottery ticket at 97 % sparsity",
        quote="a huge performance improvement of +4.93% at sparsity level 97%",
        source="section 4.4",
        margin=effect_sizes.gain("AT+TRT", "vanilla", LEVELS[16]),
        paper=4.93,
        max_gain=effect_sizes.max_gain("vanilla", LEVELS[16]),
    ),
    Claim(
        says="At 97 % sparsity, AT+TRT is less than 1 point worse than rewinding",
        quote="at some higher sparsity (74% - 89%, and 97%), AT + TRT can still perform "
        "comparably with rewinding",
        source="section 4.4",
        margin=effect_sizes.gain("AT+TRT", PLAIN_REWOUND, LEVELS[16]),
        at_least=-1,
    ),
)


def draw(results: Results, scale: Scale) -> Figure:
    """Draw panels a and b; dashed lines are dense networks with and without the tweaks."""
    fig = style.new_figure(style.PAGE, 2.7)
    for ax, (title, kinds) in zip(fig.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
        dense = kinds if "vanilla" in kinds else ("vanilla",)
        panels.panel(ax, results, kinds, title=title, dense=dense)
    fig.axes[1].set_ylabel("")
    panels.legend(fig)
    return fig
