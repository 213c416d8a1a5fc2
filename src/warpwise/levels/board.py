"""TensorBoard: an optional view of a run; history.jsonl is the record."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warpwise.extras import installed


@dataclass(frozen=True, eq=False)
class Board:
    """Curves and images of a run."""

    writer: Any

    @classmethod
    def open(cls, folder: Path, step: int) -> "Board | None":
        """What was drawn after `step` is drawn anew; None where TensorBoard is not installed."""
        if not installed("tensorboard"):
            return None
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - a second to import

        return cls(SummaryWriter(folder, purge_step=step + 1 if step else None))

    def curves(self, group: str, values: Mapping[str, float], step: int) -> None:
        """One point of each curve."""
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def images(self, shown: Mapping[str, Tensor], step: int) -> None:
        """Middle slices, side by side."""
        if not shown:
            return
        slices = [middle(image.detach().float().cpu()) for image in shown.values()]
        self.writer.add_image(" | ".join(shown), torch.cat(slices, 1)[None], step)
        self.writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()


def middle(image: Tensor) -> Tensor:
    """The middle slice of an image (X, Y[, Z]) as rows and columns of intensities 0 … 1."""
    if image.dim() == 3 and image.shape[1] > 1:
        image = image[..., image.shape[-1] // 2]
    image = image.reshape(image.shape[0], -1)
    return image.T.flip(0).clamp(0, 1)
