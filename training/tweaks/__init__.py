"""ToST's tweaks. One file each, one line each here."""

from training.tweaks.ghosts import GhostNeurons, GhostSkips
from training.tweaks.smoothing import Smoothing
from training.tweaks.tweak import Tweak

__all__ = ["TWEAKS", "Tweak"]

TWEAKS: dict[str, type[Tweak]] = {
    "ghost_neurons": GhostNeurons,
    "ghost_skips": GhostSkips,
    "smoothing": Smoothing,
}
