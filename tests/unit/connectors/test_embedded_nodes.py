"""Ports, ids and properties of an embedded cluster."""

import contextlib
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.embedded.cluster import (
    ClusterPlan,
    few_threads,
    format_command,
    format_words,
    free_ports,
    node_properties,
    plan_cluster,
    require_free,
    words_text,
)
from penstock.schemas.errors import ConfigError


def read_properties(text: str) -> dict[str, str]:
    """As Java reads them, for what is used of the format: backslashes quote."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        found[name] = re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], value)
    return found


def properties(
    plan: ClusterPlan, number: int = 1, settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    node = plan.nodes[number - 1]
    text = node_properties(plan, node, folder=Path("/data") / node.name, users={}, settings=settings or {})
    return read_properties(text)


def test_ports_are_different_and_not_those_that_linux_lends_to_outgoing_connections() -> None:
    first_lent = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    plan = plan_cluster(nodes=9, port=None)
    ports = [p for node in plan.nodes for p in (node.port, node.controller_port, node.users_port)]
    assert len(set(ports)) == 27
    assert max(ports) < first_lent


def test_a_wanted_port_is_the_first_nodes_and_the_others_follow() -> None:
    wanted = free_ports(1)[0]
    plan = plan_cluster(nodes=1, port=wanted)
    assert plan.bootstrap_servers == f"127.0.0.1:{wanted}"
    assert len({plan.nodes[0].port, plan.nodes[0].controller_port, plan.nodes[0].users_port}) == 3


def two_ports_in_a_row() -> tuple[int, int]:
    """Both free, and of those that no outgoing connection of a test beside this one is given meanwhile."""
    while True:
        (port,) = free_ports(1)
        with contextlib.suppress(ConfigError):
            require_free([port + 1])
            return port, port + 1


def test_a_port_that_somebody_listens_on_is_refused() -> None:
    before, port = two_ports_in_a_row()
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(ConfigError, match=f"port {port} is not free"):
            plan_cluster(nodes=1, port=port)
        with pytest.raises(ConfigError, match=f"port {port} is not free"):
            plan_cluster(nodes=2, port=before)
    require_free([port])


@pytest.mark.parametrize("port", [-1, 0, 65_536])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="is not a port"):
        plan_cluster(nodes=1, port=port)


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    plan = plan_cluster(nodes=3, port=None)
    (tmp_path / "cluster.json").write_text(plan.write())
    assert ClusterPlan.read(tmp_path / "cluster.json") == plan


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"cluster_id": "x", "nodes": [{"number": 1}]}', '{"nodes": 3}']
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(ConfigError, match="does not describe"):
        ClusterPlan.read(tmp_path / "cluster.json")


@pytest.mark.parametrize(
    ("nodes", "replicas", "in_sync"), [(1, "1", "1"), (2, "2", "1"), (3, "3", "2"), (5, "3", "2")]
)
def test_topics_have_as_many_copies_as_the_nodes_allow(nodes: int, replicas: str, in_sync: str) -> None:
    found = properties(plan_cluster(nodes=nodes, port=None))
    for kind in ("default", "offsets.topic", "transaction.state.log"):
        assert found[f"{kind}.replication.factor"] == replicas
    assert found["transaction.state.log.min.isr"] == found["min.insync.replicas"] == in_sync


def test_every_node_knows_all_controllers_and_only_its_own_listeners() -> None:
    plan = plan_cluster(nodes=3, port=None)
    third = properties(plan, 3)
    quorum = ",".join(f"127.0.0.1:{node.controller_port}" for node in plan.nodes)
    assert third["controller.quorum.bootstrap.servers"] == quorum
    assert third["advertised.listeners"] == f"PLAINTEXT://127.0.0.1:{plan.nodes[2].port}"
    words = format_words(plan, folder=Path("f"))
    for node in plan.nodes:
        assert f"{node.number}@127.0.0.1:{node.controller_port}:{node.directory_id}" in words[-1]


@given(words=st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126))))
def test_the_words_of_a_command_are_read_from_a_file_as_they_are(words: list[str]) -> None:
    """Passwords are among them, and everyone on a machine reads the command lines of all."""
    lines = words_text(words).splitlines()
    assert [re.sub(r"\\(.)", r"\1", line.removeprefix('"').removesuffix('"')) for line in lines] == words
    plan = plan_cluster(nodes=1, port=None)
    assert (
        format_command(plan, java=Path("java"), jars=Path("jars"), folder=Path("f"))[-1] == "@f/format.words"
    )


def test_settings_go_over_ours() -> None:
    plan = plan_cluster(nodes=1, port=None)
    assert properties(plan, settings={"min.insync.replicas": "7"})["min.insync.replicas"] == "7"


@given(password=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_any_password_stays_inside_its_quotes(password: str) -> None:
    plan = ClusterPlan(cluster_id="c", nodes=plan_cluster(nodes=1, port=None).nodes)
    text = node_properties(plan, plan.nodes[0], folder=Path("/d"), users={"ann": password}, settings={})
    login = read_properties(text)["listener.name.users.plain.sasl.jaas.config"]
    opening = login.index('"') + 1
    read, place = "", opening
    while login[place] != '"':
        place += login[place] == "\\"
        read += login[place]
        place += 1
    assert read == password
    assert login[place + 1 :] == ";"


@pytest.mark.parametrize(
    ("cores", "io", "network"), [(1, "2", "1"), (2, "2", "1"), (4, "4", "2"), (8, "8", "3"), (64, "8", "3")]
)
def test_a_node_has_no_more_threads_than_its_machine_can_run(cores: int, io: str, network: str) -> None:
    assert few_threads(cores) == {"num.io.threads": io, "num.network.threads": network}
