"""Every registered encoder step by step, as a fusion between its levels runs it."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lemof_model.encoders.registry import ENCODERS, build_network
from lemof_model.pyramid import EncoderState, Inputs, Level, ModalityNetwork, PyramidEncoder
from lemof_model.study import EncoderSpec
from tests.inputs import inputs_of

ALL = [(modality, name) for modality, names in ENCODERS.items() for name in names]
NUMBERS = (1, 2, 3)
Change = Callable[[int, EncoderState], EncoderState]

every_encoder = pytest.mark.parametrize(("modality", "name"), ALL)


def network(modality: str, name: str) -> ModalityNetwork:
    return build_network(modality, EncoderSpec(name), seed=1).eval()


def as_is(number: int, state: EncoderState) -> EncoderState:
    return state


def walk(encoder: PyramidEncoder, inputs: Inputs, change: Change = as_is) -> tuple[list[EncoderState], list[Level]]:
    """The states after each step, changed as a fusion would, and what the levels show of them."""
    state, states, levels = encoder.start(inputs), [], []
    for number in NUMBERS:
        state = change(number, encoder.advance(number, state))
        states.append(state)
        levels.append(encoder.level(number, state))
    return states, levels


def gated(encoder: PyramidEncoder, state: EncoderState, gate_BD: Tensor) -> EncoderState:
    """The state with each stay's channels multiplied by its gates, whatever the form of the features."""
    features = state.features.movedim(encoder.channel_axis, -1)
    gate = gate_BD.view(len(gate_BD), *[1] * (features.dim() - 2), -1)
    return state._replace(features=(features * gate).movedim(-1, encoder.channel_axis))


def same(one: Level, other: Level) -> bool:
    return torch.equal(one.tokens_BTD, other.tokens_BTD) and torch.equal(one.pooled_BD, other.pooled_BD)


@every_encoder
@pytest.mark.parametrize("training", [False, True])
def test_the_steps_are_the_whole_to_the_bit(modality: str, name: str, training: bool) -> None:
    encoder, inputs = network(modality, name).train(training).encoder, inputs_of(modality)
    torch.manual_seed(3)
    whole = encoder(inputs)
    torch.manual_seed(3)  # of dropout and augmentation
    states, levels = walk(encoder, inputs)
    assert all(same(*pair) for pair in zip(levels, whole, strict=True))
    assert type(encoder).forward is PyramidEncoder.forward, "the whole has one home"
    penalty_B = states[-1].penalty_B
    assert (penalty_B is None) == (name != "tabnet")
    assert encoder.penalty_B is None if penalty_B is None else torch.equal(penalty_B, encoder.penalty_B)  # type: ignore[arg-type]


@every_encoder
def test_heads_and_attention_read_what_a_level_shows(modality: str, name: str) -> None:
    built, inputs = network(modality, name), inputs_of(modality)
    _, levels = walk(built.encoder, inputs)
    logit_BK = torch.cat([head(level.pooled_BD) for head, level in zip(built.heads, levels, strict=True)], dim=1)
    assert torch.equal(logit_BK, built(inputs))
    for number, level in zip(NUMBERS, levels, strict=True):
        normed = functional.layer_norm(level.tokens_BTD, level.tokens_BTD.shape[2:])
        assert torch.equal(built.tokens(inputs, number), normed)


@every_encoder
def test_only_the_state_goes_from_step_to_step(modality: str, name: str) -> None:
    encoder, batches = network(modality, name).encoder, [inputs_of(modality, seed=0), inputs_of(modality, 3, seed=1)]
    alone = [walk(encoder, inputs)[1] for inputs in batches]
    states = [encoder.start(inputs) for inputs in batches]
    for number in NUMBERS:  # two batches in turns, and each step and level twice
        before = copy.deepcopy(
            [(state.features.detach(), [part.detach() for part in state.carried]) for state in states]
        )
        ahead = [encoder.advance(number, state) for state in states]
        for state, (features, carried) in zip(states, before, strict=True):
            assert torch.equal(state.features, features), "a step left a mark on the state that it was given"
            assert all(torch.equal(*pair) for pair in zip(state.carried, carried, strict=True))
        states = [encoder.advance(number, state) for state in states]
        for levels, state, again in zip(alone, states, ahead, strict=True):
            assert same(encoder.level(number, state), levels[number - 1])
            assert same(encoder.level(number, again), levels[number - 1])


@every_encoder
@pytest.mark.parametrize("changed", NUMBERS)
def test_a_gate_on_the_channels_changes_its_level_and_later_ones(modality: str, name: str, changed: int) -> None:
    encoder, inputs = network(modality, name).encoder, inputs_of(modality)
    _, untouched = walk(encoder, inputs)
    width = encoder.state_widths[changed - 1]
    gate_BD = torch.rand(5, width, generator=torch.Generator().manual_seed(0))
    gate_BD[0] = 1.0  # this stay is left as it is

    def change(number: int, state: EncoderState) -> EncoderState:
        return gated(encoder, state, gate_BD) if number == changed else state

    states, levels = walk(encoder, inputs, change)
    for number in NUMBERS:
        shown = encoder.level(number, states[number - 1])  # again, now that the later steps are done
        assert same(shown, levels[number - 1])
        for after, before in zip(shown, untouched[number - 1], strict=True):
            assert torch.allclose(after[0], before[0], rtol=1e-4, atol=1e-5)
            if number < changed:
                assert torch.equal(after, before)
            else:
                assert ((after - before)[1:].flatten(1).abs().amax(dim=1) > 1e-4).all()


@every_encoder
def test_the_state_is_as_wide_as_stated_and_every_channel_counts(modality: str, name: str) -> None:
    encoder, inputs = network(modality, name).encoder, inputs_of(modality, 40)
    leaves: list[Tensor] = []

    def change(number: int, state: EncoderState) -> EncoderState:
        leaves.append(torch.full_like(state.features, 2.0).requires_grad_())  # 2: out of the reach of a dead ReLU
        return state._replace(features=state.features + leaves[-1])

    _, levels = walk(encoder, inputs, change)
    for number, leaf in zip(NUMBERS, leaves, strict=True):
        assert leaf.shape[0] == 40 and leaf.shape[encoder.channel_axis] == encoder.state_widths[number - 1]
        shown = [part for level in levels[number - 1 :] for part in level]
        total = torch.stack([(part * torch.linspace(0.5, 2.0, part.shape[-1])).sum() for part in shown]).sum()
        (at_the_end,) = torch.autograd.grad(levels[-1].pooled_BD.sum(), leaf, retain_graph=True)
        assert at_the_end.abs().sum() > 0, "level 3 learns nothing from a change here"
        (slope,) = torch.autograd.grad(total, leaf, retain_graph=True)
        per_channel = slope.movedim(encoder.channel_axis, 0).flatten(1).abs().amax(dim=1)
        assert per_channel.min() > 0, f"after step {number} nothing reads the channels {torch.where(per_channel == 0)}"


def test_an_encoder_without_its_levels_cannot_be_built() -> None:
    class Unfinished(PyramidEncoder):
        def start(self, inputs: Inputs) -> EncoderState:
            assert isinstance(inputs, Tensor)
            return EncoderState(inputs)

        def advance(self, number: int, state: EncoderState) -> EncoderState:
            return state

    with pytest.raises(TypeError, match=r"abstract method '?level"):
        Unfinished()  # type: ignore[abstract]
