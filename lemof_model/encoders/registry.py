"""Encoders by name: the plan chooses them, both sides build them here."""

import torch

from lemof_model.encoders.ecg_cnn import EcgCnn
from lemof_model.encoders.ecg_lstm import EcgLstm
from lemof_model.encoders.ecg_resnet import EcgResNet
from lemof_model.encoders.ecg_wavenet import EcgWaveNet
from lemof_model.encoders.ehr_ft_transformer import FTTransformer
from lemof_model.encoders.ehr_mlp import MLP
from lemof_model.encoders.ehr_tab_transformer import TabTransformer
from lemof_model.encoders.ehr_tabnet import TabNet
from lemof_model.encoders.ehr_tpc import TPC
from lemof_model.errors import ConfigError
from lemof_model.features import GRID_CHANNELS
from lemof_model.pyramid import ModalityNetwork, PyramidEncoder
from lemof_model.stays import CONCEPT_COLUMNS, NUM_CATEGORIES, NUMERIC_COLUMNS, STATIC_COLUMNS, SYSTEM_TOKENS
from lemof_model.study import EncoderSpec

# What no plan chooses and the feature schema says: the sizes of an EHR encoder's inputs.
TABLE = (len(NUMERIC_COLUMNS), NUM_CATEGORIES)
OF_SCHEMA: dict[str, tuple[object, ...]] = {
    "ft_transformer": (CONCEPT_COLUMNS, NUM_CATEGORIES, SYSTEM_TOKENS),
    "mlp": TABLE,
    "tab_transformer": TABLE,
    "tabnet": TABLE,
    "tpc": (len(GRID_CHANNELS), STATIC_COLUMNS, NUM_CATEGORIES),
}

ENCODERS: dict[str, dict[str, type[PyramidEncoder]]] = {
    "ecg": {
        "cnn": EcgCnn,
        "lstm": EcgLstm,
        "resnet": EcgResNet,
        "wavenet": EcgWaveNet,
    },
    "ehr": {
        "ft_transformer": FTTransformer,
        "mlp": MLP,
        "tab_transformer": TabTransformer,
        "tabnet": TabNet,
        "tpc": TPC,
    },
}


def encoder_class(modality: str, spec: EncoderSpec) -> type[PyramidEncoder]:
    """The encoder of that name.

    Raises:
        ConfigError: an unknown name; the right ones are listed.

    Example:
        >>> encoder_class("ehr", EncoderSpec("tpc")).uses_grid
        True
    """
    known = ENCODERS[modality]
    if spec.name not in known:
        raise ConfigError(f"{modality}.name must be one of {', '.join(sorted(known))}, got {spec.name!r}.")
    return known[spec.name]


def build_network(modality: str, spec: EncoderSpec, seed: int = 0) -> ModalityNetwork:
    """Build an encoder with its three heads; the initial weights are a function of ``seed`` alone.

    Raises:
        ConfigError: an unknown name (the right ones are listed) or a size the encoder does not have.
    """
    encoder = encoder_class(modality, spec)
    if spec.sizes.get("num_tokens", 2) < 2:
        raise ConfigError(
            f"{modality}.sizes.num_tokens must be at least 2, got {spec.sizes['num_tokens']}. Over a single token the "
            "softmax of attention is 1: nothing is attended to, and query and key weights learn nothing."
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return ModalityNetwork(encoder(*OF_SCHEMA.get(spec.name, ()), **spec.sizes))
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            raise ConfigError(f"{modality}.sizes must suit the encoder {spec.name}: {error}.") from error
