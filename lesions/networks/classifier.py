"""The classifier: a network with its normalisation, from 8-bit photos to logits."""

import torch
from torch import Tensor, nn

from lesions.common.errors import LesionsError
from lesions.networks.hardware import AUTOCAST, Hardware
from lesions.networks.model_card import ModelCard


class Classifier:
    """A network on a device, with the normalisation of its model card."""

    def __init__(self, network: nn.Module, card: ModelCard, hardware: Hardware) -> None:
        """Move `network` to the device.

        Args:
            network: built by `architectures.build`.
            card: what it is or was trained with.
            hardware: where to compute, and in which precision. In bf16 and fp16, only what
                autocast considers safe.
        """
        self.card = card
        self.device = device = hardware.device
        self._autocast = AUTOCAST.get(hardware.precision)
        self._tf32 = hardware.precision == "tf32"
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = torch.tensor(card.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(card.std, device=device).view(1, 3, 1, 1)

    def normalise(self, images: Tensor) -> Tensor:
        """Turn (b, 3, s, s) float32 in [0, 1] into the network's input; overwrites `images`."""
        images = images.sub_(self._mean).div_(self._std)
        return images.contiguous(memory_format=torch.channels_last)

    def logits(self, images: Tensor) -> Tensor:
        """Turn (b, 3, s, s) float32 in [0, 1] into (b, classes) float32; overwrites `images`.

        Raises:
            LesionsError: the network returns something else.
        """
        # torch's own default is TF32 in convolutions: 10 bits of mantissa instead of 23. Set each
        # time, because training and validation may differ; the backward pass follows.
        torch.backends.cuda.matmul.allow_tf32 = self._tf32
        torch.backends.cudnn.allow_tf32 = self._tf32
        with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
            output = self.network(self.normalise(images))
        if not isinstance(output, Tensor):
            raise LesionsError(
                f"{self.card.network.title}: has other outputs than one value per class, in "
                "training at least. Choose another network."
            )
        return output.float()

    def logits_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits and the features that the head computes them from.

        Args:
            images: (b, 3, s, s) float32 in [0, 1]; overwritten.

        Returns:
            (b, classes) float32, and (b, f) float32, rows of length 1: the last feature map
            averaged over its positions.

        Raises:
            LesionsError: the submodule that the card names makes no feature map.
        """
        maps: list[object] = []
        last = self.network.get_submodule(self.card.network.features)
        hook = last.register_forward_hook(lambda module, given, made: maps.append(made))
        try:
            logits = self.logits(images)
        finally:
            hook.remove()
        made = maps[0] if maps else None
        # Photos are square, and so are their maps.
        if not (isinstance(made, Tensor) and made.ndim == 4 and made.shape[2] == made.shape[3]):
            found = tuple(made.shape) if isinstance(made, Tensor) else "nothing"
            raise LesionsError(
                f"{self.card.network.title}: its `features`, {self.card.network.features}, makes "
                f"{found}, not a feature map (photos, channels, height, width). `lesions "
                "add-network` finds the submodule that does, if there is one."
            )
        return logits, nn.functional.normalize(made.float().mean(dim=(2, 3)))
