"""A callback that watches a network in Lightning's Trainer."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sparsediag.watch.watch import Watch


class WatchCallback(Callback):
    """Watch the network that is trained: `Trainer(callbacks=[WatchCallback(every=100)])`.

    Rows go to the loggers of the Trainer too. Names of weights are those of the LightningModule.

    Args:
        options: Of `Watch`, except for the network and the optimizer.

    >>> WatchCallback(every=50).options
    {'every': 50}
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.watch: Watch | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        net = trainer.strategy.model or pl_module  # wrapped, if it is trained in several processes
        given: dict[str, Any] = {"optimizer": trainer.optimizers, "log": self.log_row}
        self.watch = Watch(net, **given | self.options)
        self.watch.steps, self.trainer = trainer.global_step, trainer

    def log_row(self, row: dict[str, Any]) -> None:
        """Hand a row to the loggers of the Trainer."""
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=row["step"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Count the step, if the optimizer has taken one."""
        if self.watch and trainer.global_step > self.watch.steps:
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            self.watch.step(loss, epoch=trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove all hooks."""
        if self.watch:
            self.watch.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Remove all hooks."""
        self.on_train_end(trainer, pl_module)
