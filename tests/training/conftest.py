"""What several tests of trainings need."""

import pytest
import torch
from torch import Tensor, nn

from training.optim import Optim


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The state of every net when its training starts."""
    states: list[dict[str, Tensor]] = []
    build_optimiser = Optim.build

    def spy(optim: Optim, net: nn.Module) -> torch.optim.Optimizer:
        states.append({name: t.clone() for name, t in net.state_dict().items()})
        return build_optimiser(optim, net)

    monkeypatch.setattr(Optim, "build", spy)
    return states
