"""Lottery, Figure 4: the tweaks of the architecture (AT) and of the training (TRT) together.

Test accuracy of ResNet-18 on CIFAR-100 over rounds 1 to 16 of a fifth each: a) compared with plain
tickets, b) compared with plain tickets that are rewound to epoch 33 of 180. The paper's claim: AT
helps most at high sparsity and TRT at low sparsity, and together they win up to 91 %.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from figures import accuracy, effect_sizes
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
PAPER = {"AT": 4.08, "AT+TRT": 4.93}  # points over vanilla at 97 %; sections 4.2 and 4.4
LOW = [LEVELS[k] for k in range(1, 6)]  # 20 to 67 %, where plain tickets win
HIGH = [LEVELS[k] for k in range(11, 17)]  # 91 to 97 %
CLOSE = 1.0  # points within which two networks count as comparable


def only_tweaked_win(results: Results) -> list[float]:
    """Return by how much tickets win with the tweaks or miss it without: the smaller, by seed."""
    dense = accuracy.by_seed(results, "vanilla", 1)
    plain = accuracy.by_seed(results, "vanilla", LEVELS[11])
    tweaked = accuracy.by_seed(results, "AT+TRT", LEVELS[11])
    deviation = float(np.std(list(dense.values()), ddof=1)) if len(dense) > 1 else 0.0
    return [
        min(tweaked[s] - (dense[s] - deviation), (dense[s] - deviation) - plain[s])
        for s in sorted(dense.keys() & plain.keys() & tweaked.keys())
    ]


CLAIMS = (
    *(
        Claim(
            says=f"{kind} improves a lottery ticket at 97 % sparsity",
            quote=quote,
            source=source,
            margin=effect_sizes.gain(kind, "vanilla", LEVELS[16]),
            paper=PAPER[kind],
            max_gain=effect_sizes.max_gain("vanilla", LEVELS[16]),
        )
        for kind, quote, source in (
            (
                "AT",
                "the performance gap increase with the increase in sparsity level (+4.08% for "
                "sparsity level 97%)",
                "section 4.2",
            ),
            (
                "AT+TRT",
                "a huge performance improvement of +4.93% at sparsity level 97%",
                "section 4.4",
            ),
        )
    ),
    Claim(
        says="At 91 % sparsity, tickets win with AT+TRT and do not win without",
        quote="AT + TRT technique allow tickets identified at sparsity as high as 91% to be "
        '"winning tickets", in comparison to 67% for the vanilla-LTH',
        source="section 4.4",
        margin=only_tweaked_win,
    ),
    Claim(
        says="AT is better than TRT at 91 to 97 % sparsity, and by more than at 20 to 67 %",
        quote="AT techniques provide significant improvements at high sparsity levels, TRT "
        "techniques provide significant improvements at low sparsity level",
        source="section 4.4",
        margin=effect_sizes.combine(
            lambda high, low: min(high, high - low),
            effect_sizes.gain("AT", "TRT", *HIGH),
            effect_sizes.gain("AT", "TRT", *LOW, complete=True),
        ),
    ),
    Claim(
        says="At 20 to 67 % sparsity, AT+TRT is better than rewinding",
        quote="At sparsity lower than it, AT + TRT generally outperforms weight rewinding",
        source="section 4.4",
        margin=effect_sizes.gain("AT+TRT", PLAIN_REWOUND, *LOW, complete=True),
    ),
    Claim(
        says=f"At 97 % sparsity, AT+TRT is at most {CLOSE:.0f} point worse than rewinding",
        quote="at some higher sparsity (74% - 89%, and 97%), AT + TRT can still perform "
        "comparably with rewinding",
        source="section 4.4",
        margin=effect_sizes.combine(
            lambda gain: gain + CLOSE, effect_sizes.gain("AT+TRT", PLAIN_REWOUND, LEVELS[16])
        ),
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
