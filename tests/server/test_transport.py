"""``FlowerTransport`` over a grid whose nodes answer, die, come back and lie; and the records that travel."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import server.transport
from lemof_model.errors import NetworkError
from lemof_model.study import Study
from protocol.messages import Answer, ImportanceRequest, Packet, Refusal
from protocol.records import packet_to_recorddict, recorddict_to_packet
from server.transport import FlowerTransport

DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8", "bool")


@pytest.fixture(autouse=True)
def flower_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages can be made only where Flower has told who sends them."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Nodes:
    """A grid in memory. ``behaviour[node]`` makes the reply to a message, or None for silence."""

    def __init__(self, **sites: int) -> None:
        self.behaviour: dict[int, Callable[[Message], Message | None]] = {}
        self.sent: list[tuple[int, str]] = []
        self.replies: dict[str, Message] = {}
        for site, node in sites.items():
            self.behaviour[node] = answering(site)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.behaviour)

    def push_messages(self, messages: Iterable[Message]) -> Iterator[str]:
        for message in messages:
            name = f"message {len(self.sent)}"
            message.metadata.__dict__["_message_id"] = name
            self.sent.append((message.metadata.dst_node_id, message.metadata.message_type))
            if reply := self.behaviour[message.metadata.dst_node_id](message):
                self.replies[name] = reply
            yield name

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self.replies.pop(name) for name in sorted(message_ids, reverse=True) if name in self.replies]


def answering(site: str) -> Callable[[Message], Message]:
    """A node that tells its site's name and answers with the model it was sent."""

    def reply(message: Message) -> Message:
        if message.metadata.message_type == "query.hello":
            packet = Packet({}, {}, {"site": site})
        else:
            request = recorddict_to_packet(message.content)
            packet = Answer(
                stage=request.config["stage"],
                round=int(request.metrics["round"]),
                site=site,
                plan_digest=request.config["plan_digest"],
                sums=request.arrays,
                counts={"stack": 5},
            ).to_packet()
        return Message(packet_to_recorddict(packet), reply_to=message)

    return reply


def failing(code: int, site: str = "a") -> Callable[[Message], Message]:
    """A node that tells its name and answers everything else with a Flower error."""

    def reply(message: Message) -> Message:
        if message.metadata.message_type == "query.hello":
            return answering(site)(message)
        return Message(Error(code, "the reason"), reply_to=message)

    return reply


def silent_after_hello(site: str) -> Callable[[Message], Message | None]:
    """A node that tells its name and then hangs."""
    return lambda message: answering(site)(message) if message.metadata.message_type == "query.hello" else None


def transport(nodes: Nodes, min_sites: int = 1) -> FlowerTransport:
    return FlowerTransport(
        cast(Grid, nodes),
        min_sites,
        join_timeout_seconds=0.2,
        answer_timeout_seconds=0.3,
        rejoin_timeout_seconds=0.1,
        poll_seconds=0.01,
    )


def ask(over: FlowerTransport, *sites: str) -> dict[str, Answer | Refusal]:
    request = ImportanceRequest(study=Study(), round=3, model={"w": np.arange(4.0)})
    return over.ask("importance", dict.fromkeys(sites, request))


def refused(answer: Answer | Refusal) -> Refusal:
    assert isinstance(answer, Refusal)
    assert (answer.stage, answer.round) == ("importance", 3)
    return answer


def test_sites_are_named_and_sorted_whatever_their_nodes() -> None:
    assert transport(Nodes(b=7, a=9), min_sites=2).sites() == ["a", "b"]


def test_too_few_sites_are_an_error_that_counts_them() -> None:
    with pytest.raises(NetworkError, match=r"at least 3, got 2 \(a, b\)"):
        transport(Nodes(b=7, a=9), min_sites=3).sites()


def test_two_sites_of_one_name_are_an_error_that_names_them() -> None:
    nodes = Nodes(a=1, b=2)
    nodes.behaviour[3] = answering("b")
    with pytest.raises(NetworkError, match="more than one site online as b"):
        transport(nodes).sites()


def test_a_node_that_cannot_tell_its_name_is_asked_once_and_its_reason_told() -> None:
    nodes = Nodes()
    nodes.behaviour[4] = lambda message: Message(Error(ErrorCode.INVALID_FAB, "not this bundle"), reply_to=message)
    with pytest.raises(NetworkError, match="not this bundle"):
        transport(nodes).sites()
    assert nodes.sent == [(4, "query.hello")]


def test_a_node_that_never_tells_its_name_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.transport, "HELLO_SECONDS", 0.05)
    nodes = Nodes(a=1)
    nodes.behaviour[2] = lambda message: None
    with caplog.at_level(logging.WARNING, "lemof"):
        assert FlowerTransport(cast(Grid, nodes), 1, poll_seconds=0.01).sites() == ["a"]
    assert "1 more online did not tell a name in 0.05 s; the study begins without them" in caplog.text
    with pytest.raises(NetworkError, match=r"at least 2, got 1 \(a\) in 0\.2 s\. 1 online did not tell a name\. Start"):
        transport(nodes, min_sites=2).sites()


def test_a_foreign_node_is_no_hospital_and_harms_nobody() -> None:
    nodes = Nodes(a=1)
    nodes.behaviour[2] = lambda message: Message(RecordDict(), reply_to=message)
    over = transport(nodes)
    assert over.sites() == ["a"]
    assert isinstance(ask(over, "a")["a"], Answer)


def test_an_answer_that_cannot_be_read_is_that_sites_refusal_alone() -> None:
    nodes = Nodes(a=1, b=2)
    broken = Packet({}, {"round": 3}, {"kind": "answer", "site": "b"})
    honest = answering("b")
    nodes.behaviour[2] = lambda message: (
        honest(message) if message.metadata.message_type == "query.hello"
        else Message(packet_to_recorddict(broken), reply_to=message)
    )  # fmt: skip
    over = transport(nodes)
    over.sites()
    answers = ask(over, "a", "b")
    assert isinstance(answers["a"], Answer)
    assert (refused(answers["b"]).code, "one from b that cannot be read" in refused(answers["b"]).reason) == (8, True)


def test_a_dead_site_costs_its_wait_once_and_is_asked_again_when_it_is_back() -> None:
    nodes = Nodes(a=1, b=2)
    over = FlowerTransport(cast(Grid, nodes), 1, rejoin_timeout_seconds=0.5, poll_seconds=0.01)
    over.sites()
    del nodes.behaviour[1]
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        assert "offline" in refused(ask(over, "a", "b")["a"]).reason
        seconds.append(time.monotonic() - began)
    assert seconds[0] > 0.5 > 5 * max(seconds[1:])
    nodes.behaviour[9] = answering("a")
    assert isinstance(ask(over, "a", "b")["a"], Answer)


def test_it_is_said_for_whom_the_coordinator_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.transport, "TOLD_SECONDS", 0.05)
    nodes, notes = Nodes(a=1), list[str]()
    nodes.behaviour[2] = silent_after_hello("b")
    over = FlowerTransport(cast(Grid, nodes), 2, note=notes.append, answer_timeout_seconds=0.2, poll_seconds=0.01)
    over.sites()
    with caplog.at_level(logging.INFO, "lemof"):
        ask(over, "a", "b")
    assert notes == ["b (importance)", ""]
    assert "waiting for b (importance)" in caplog.text


def test_every_site_gets_its_request_and_its_answer_comes_back_whole() -> None:
    nodes = Nodes(a=1, b=2)
    over = transport(nodes)
    over.sites()
    answers = ask(over, "b", "a")
    assert answers.keys() == {"a", "b"}
    for site, answer in answers.items():
        assert isinstance(answer, Answer)
        assert (answer.site, answer.round, answer.counts) == (site, 3, {"stack": 5})
        np.testing.assert_array_equal(answer.sums["w"], np.arange(4.0))
    assert nodes.sent[2:] == [(1, "query.importance"), (2, "query.importance")]


def test_a_site_that_is_offline_is_a_refusal_and_the_others_answer() -> None:
    nodes = Nodes(a=1, b=2)
    over = transport(nodes)
    over.sites()
    del nodes.behaviour[1]
    answers = ask(over, "a", "b")
    assert (refused(answers["a"]).code, refused(answers["a"]).site) == (7, "a")
    assert "offline" in refused(answers["a"]).reason
    assert isinstance(answers["b"], Answer)


def test_a_site_that_does_not_answer_in_time_is_a_refusal() -> None:
    nodes = Nodes()
    nodes.behaviour[1] = silent_after_hello("a")
    over = transport(nodes)
    over.sites()
    assert "no answer in 0.3 s" in refused(ask(over, "a")["a"]).reason


def test_a_site_that_restarts_under_another_number_is_found_and_asked_again() -> None:
    nodes = Nodes()
    over = transport(nodes)

    def dies(message: Message) -> Message:
        if message.metadata.message_type == "query.hello":
            return answering("a")(message)
        nodes.behaviour = {8: answering("a")}
        return Message(Error(ErrorCode.NODE_UNAVAILABLE, "gone"), reply_to=message)

    nodes.behaviour[1] = dies
    over.sites()
    assert isinstance(ask(over, "a")["a"], Answer)
    assert nodes.sent == [(1, "query.hello"), (1, "query.importance"), (8, "query.hello"), (8, "query.importance")]


def test_a_network_error_is_tried_three_times() -> None:
    nodes = Nodes()
    nodes.behaviour[1] = failing(ErrorCode.NODE_UNAVAILABLE)
    over = transport(nodes)
    over.sites()
    assert "the reason" in refused(ask(over, "a")["a"]).reason
    assert [kind for _, kind in nodes.sent].count("query.importance") == 3


@pytest.mark.parametrize("code", [ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.LOAD_CLIENT_APP_EXCEPTION])
def test_an_error_of_the_sites_own_code_is_not_tried_again(code: int) -> None:
    nodes = Nodes()
    nodes.behaviour[1] = failing(code)
    over = transport(nodes)
    over.sites()
    assert refused(ask(over, "a")["a"]).code == 1
    assert [kind for _, kind in nodes.sent].count("query.importance") == 1


def test_a_second_node_under_a_name_does_not_take_over_a_site_that_is_online() -> None:
    nodes = Nodes(a=5, b=6)
    over = transport(nodes)
    over.sites()
    nodes.behaviour[1] = answering("a")
    del nodes.behaviour[6]
    ask(over, "a", "b")
    assert (5, "query.importance") in nodes.sent
    assert (1, "query.importance") not in nodes.sent


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8), st.sampled_from(DTYPES).flatmap(lambda d: arrays(d, array_shapes(min_dims=0, min_side=0)))
    ),
    st.dictionaries(st.text(max_size=8), st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)),
    st.dictionaries(st.text(max_size=8), st.text(max_size=20)),
)
def test_a_packet_comes_back_bit_for_bit(
    blobs: dict[str, Any], metrics: dict[str, int | float], config: dict[str, str]
) -> None:
    packet = recorddict_to_packet(packet_to_recorddict(Packet(blobs, metrics, config)))
    assert (packet.metrics, packet.config) == (metrics, config)
    assert packet.arrays.keys() == blobs.keys()
    for name, array in blobs.items():
        assert (packet.arrays[name].dtype, packet.arrays[name].shape) == (array.dtype, array.shape)
        assert packet.arrays[name].tobytes() == array.tobytes()


def test_a_packet_may_hold_views_and_scalars_of_numpy() -> None:
    blobs: dict[str, Any] = {"turned": np.arange(6.0).reshape(2, 3).T, "sum": np.arange(3.0).sum()}
    packet = recorddict_to_packet(packet_to_recorddict(Packet(blobs, {}, {})))
    np.testing.assert_array_equal(packet.arrays["turned"], blobs["turned"])
    assert packet.arrays["sum"].shape == ()
