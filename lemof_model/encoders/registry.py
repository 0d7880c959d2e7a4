"""Encoders by name: the plan chooses them, both sides build them here."""

from collections.abc import Callable

import torch

from lemof_model.encoders.ecg_resnet import EcgResNet
from lemof_model.encoders.ehr_ft_transformer import FTTransformer
from lemof_model.errors import ConfigError
from lemof_model.pyramid import ModalityNetwork, PyramidEncoder
from lemof_model.stays import NUM_CATEGORIES, NUMERIC_COLUMNS
from lemof_model.study import EncoderSpec


def _ehr(cls: Callable[..., PyramidEncoder]) -> Callable[..., PyramidEncoder]:
    """Bind the width of the feature schema, which no plan chooses."""
    return lambda **sizes: cls(len(NUMERIC_COLUMNS), NUM_CATEGORIES, **sizes)


ENCODERS: dict[str, dict[str, Callable[..., PyramidEncoder]]] = {
    "ecg": {"resnet": EcgResNet},
    "ehr": {"ft_transformer": _ehr(FTTransformer)},
}


def build_network(modality: str, spec: EncoderSpec, seed: int = 0) -> ModalityNetwork:
    """Build an encoder with its three heads; the initial weights are a function of ``seed`` alone.

    Raises:
        ConfigError: an unknown name (the right ones are listed) or a size the encoder does not have.
    """
    known = ENCODERS[modality]
    if spec.name not in known:
        raise ConfigError(f"{modality}.name must be one of {', '.join(sorted(known))}, got {spec.name!r}.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            encoder = known[spec.name](**spec.sizes)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{modality}.sizes must suit the encoder {spec.name}: {error}.") from error
        return ModalityNetwork(encoder)
