"""Encoders by name: the plan chooses them, both sides build them here."""

import inspect
import math

import torch
from torch import nn

from lemof_model.aligned import BATCH_STEP, ROW_STEP, AlignedLinear, is_narrow
from lemof_model.encoders.ecg_cnn import EcgCnn
from lemof_model.encoders.ecg_lstm import EcgLstm
from lemof_model.encoders.ecg_resnet import EcgResNet
from lemof_model.encoders.ecg_wavenet import EcgWaveNet
from lemof_model.encoders.ehr_ft_transformer import FTTransformer
from lemof_model.encoders.ehr_mlp import MLP
from lemof_model.encoders.ehr_tab_transformer import TabTransformer
from lemof_model.encoders.ehr_tabnet import TabNet
from lemof_model.encoders.ehr_tpc import TPC
from lemof_model.errors import ConfigError, Problem, nearest, problems_in, shown
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

LEAST = {"num_tokens": 2, "gamma": 1}
"""The least that a size may be where that is neither 1 for a count nor 0 for another number."""
MOST_TOKENS = 250
"""The steps of the longest level of an ECG encoder: more tokens than these it cannot show."""
MOST = 4096
"""The most that any other size may be: a hundred times the defaults, and still a network that a hospital can hold."""
OF_ONE_TOKEN = (
    "Over a single token the softmax of attention is 1: nothing is attended to, and its query and key weights learn "
    "nothing."
)

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
        close = nearest(spec.name, sorted(known))
        rule = f"{modality}.name must be one of {', '.join(sorted(known))}"
        raise ConfigError(rule=rule, got=shown(spec.name), fix=f"Did you mean {close}?" if close else "")
    return known[spec.name]


def build_network(modality: str, spec: EncoderSpec, seed: int = 0) -> ModalityNetwork:
    """Build an encoder with its three heads; the initial weights are a function of ``seed`` alone.

    Raises:
        ConfigError: an unknown name (the right ones are listed), a size the encoder does not have or cannot have.
    """
    encoder = encoder_class(modality, spec)
    _check_sizes(modality, spec, encoder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            if large := [name for name, size in spec.sizes.items() if size > MOST]:
                raise ConfigError(rule=f"{large[0]} must be at most {MOST}", got=f"{spec.sizes[large[0]]}")
            network = ModalityNetwork(encoder(*OF_SCHEMA.get(spec.name, ()), **spec.sizes))
            _check_rows(network)
            return network
        except ValueError as error:
            said = problems_in(error)[0]
            rule = f"{modality}.sizes must suit the encoder {spec.name}: {said.rule}"
            raise ConfigError(rule=rule, got=said.got, fix="Correct it.") from error


def _check_rows(network: ModalityNetwork) -> None:
    """Raise a ConfigError where a stay's last bits would depend on its place in a batch (``docs/decisions/0022``).

    Attention multiplies tokens as they lie, so each must begin where rows may begin (``lemof_model/aligned.py``).
    """
    assert network.encoder.inference_batch % BATCH_STEP == 0, f"inference_batch must be a multiple of {BATCH_STEP}"
    for width in network.encoder.token_widths:
        if width % ROW_STEP and width != 2:
            raise ConfigError(rule=f"the width of a token must be 2 or a multiple of {ROW_STEP}", got=f"{width}")
    for name, layer in network.named_modules():
        is_plain = isinstance(layer, nn.Linear) and not isinstance(layer, AlignedLinear)
        assert not (is_plain and is_narrow(layer) and layer.in_features % ROW_STEP), f"{name} must be an AlignedLinear"


def _check_sizes(modality: str, spec: EncoderSpec, encoder: type[PyramidEncoder]) -> None:
    """Raise one ConfigError that lists every size the encoder does not have, and every value that is senseless."""
    defaults = {p.name: p.default for p in inspect.signature(encoder).parameters.values() if p.default is not p.empty}
    problems = []
    for name, size in spec.sizes.items():
        if name not in defaults:
            close = nearest(name, list(defaults))
            advice = f"Did you mean {close}?" if close else "Leave it out."
            rule = f"{modality}.sizes of {spec.name} must be among {', '.join(defaults)}"
            problems.append(Problem(rule, shown(name), advice))
        elif broken := _broken_rule(name, size, is_count=isinstance(defaults[name], int)):
            is_single = (name, size) == ("num_tokens", 1)
            advice = OF_ONE_TOKEN if is_single else f"Correct it, or leave it out for {defaults[name]:g}."
            problems.append(Problem(f"{modality}.sizes.{name} must {broken}", shown(size), advice))
    if problems:
        raise ConfigError(*problems)


def _broken_rule(name: str, size: object, *, is_count: bool) -> str | None:
    """What a size of that name must do and this one does not.

    Example:
        >>> _broken_rule("gamma", 0.5, is_count=False)
        'be at least 1'
    """
    least = LEAST.get(name, int(is_count))
    if is_count and type(size) is not int:
        return "be a whole number"
    if not isinstance(size, int | float) or not -math.inf < size < math.inf:
        return "be a finite number"
    if size < least:
        return f"be at least {least}"
    if name == "num_tokens" and size > MOST_TOKENS:
        return f"be at most {MOST_TOKENS}"
    if name.endswith("dropout") and size >= 1:
        return "be below 1"
    return None
