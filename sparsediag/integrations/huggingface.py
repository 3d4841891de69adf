"""A callback that watches a network in the Trainer of Hugging Face's `transformers`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsediag.watch.watch import Watch


class WatchCallback(TrainerCallback):
    """Watch the network that is trained: `Trainer(..., callbacks=[WatchCallback(every=100)])`.

    Rows are added to `trainer.state.log_history` too, or go to `log=` if it is given. The Trainer
    does not hand over the loss of a step.

    Args:
        options: Of `Watch`, except for the network and the optimizer.

    >>> WatchCallback(every=50).options
    {'every': 50}
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.watch: Watch | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Begin."""
        given = {"optimizer": optimizer, "log": state.log_history.append} | self.options
        self.watch = Watch(model, **given)
        self.watch.steps = state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Count the step."""
        if self.watch:
            self.watch.step(epoch=state.epoch)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Remove all hooks."""
        if self.watch:
            self.watch.close()
