"""The network that a run trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Model:
    """The net. `options` holds what only some nets take, such as shortcut = "A"."""

    name: str = "resnet18"
    width: int | None = None
    activation: Literal["relu", "swish", "mish"] = "relu"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ValueError(f"width {self.width}: need 1 or more")

    def keywords(self) -> dict[str, Any]:
        """Keywords for `models.build`."""
        width = {} if self.width is None else {"width": self.width}
        return {"activation": self.activation, **width, **self.options}
