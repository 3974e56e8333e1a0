"""A single Cassandra server on free ports, which tests can kill, restart and pause."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import WhiteListRoundRobinPolicy
from cassandra.query import SimpleStatement

from kirana.serving.environment import free_ports
from kirana.stores.cassandra_tables import create_keyspace, create_table, table_name
from tests.java_server import JavaServer

MAIN = "org.apache.cassandra.service.CassandraDaemon"
KEYSPACE = "kirana_tests"
DATA_CENTRE = "datacenter1"
START_S = 120

ENTITIES = ("a", "kirana", "nothing", "prod", "product", "product_x")
"""The entities of the contract tests."""

_EXPORTS = [
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "java.base/java.lang.ref",
    "java.base/java.lang.reflect",
    "jdk.unsupported/sun.misc",
    "jdk.attach/sun.tools.attach",
    "jdk.compiler/com.sun.tools.javac.tree",
]
_OPENS = [
    "java.base/java.lang.module",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "jdk.management/com.sun.management.internal",
    "java.base/sun.nio.ch",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.lang",
]
"""What Cassandra needs from Java 17's modules."""

_CONFIG = """
cluster_name: tests
num_tokens: {tokens}
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: [{folder}/data]
commitlog_directory: {folder}/commitlog
hints_directory: {folder}/hints
saved_caches_directory: {folder}/saved_caches
cdc_raw_directory: {folder}/cdc_raw
commitlog_sync: group
commitlog_sync_group_window: 10ms
commitlog_segment_size: 16MiB
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "127.0.0.1:{storage_port}"}}]
listen_address: {host}
rpc_address: {host}
storage_port: {storage_port}
native_transport_port: {port}
start_native_transport: true
authenticator: {authenticator}
authorizer: AllowAllAuthorizer
auto_snapshot: false
memtable_heap_space: 128MiB
"""

_TLS = """
client_encryption_options:
  enabled: true
  optional: false
  keystore: {keystore}
  keystore_password: {password}
  store_type: PKCS12
"""

KEYSTORE_PASSWORD = "of-the-keystore"


class CassandraServer(JavaServer):
    """A server that runs during the `with` block. An acknowledged write survives `kill`.

    Alone, it listens on 127.0.0.1. The nodes of a cluster have the same `ports`, for clients and
    for the nodes among themselves, and each a `host`. The node on 127.0.0.1 must start first.

    A server with a `keystore` takes clients with TLS and a password only. Its first user is
    `cassandra`, with the same password.
    """

    need = "cassandra"
    start_timeout_s = START_S

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        ports: tuple[int, int] | None = None,
        keystore: Path | None = None,
    ) -> None:
        port, storage_port = ports or free_ports(2)
        super().__init__(folder, port, host)
        self._is_member = ports is not None
        self._session: Session | None = None
        self._config = folder / "cassandra.yaml"
        config = _CONFIG.format(
            folder=folder,
            host=host,
            port=port,
            storage_port=storage_port,
            tokens=4 if self._is_member else 16,
            authenticator="PasswordAuthenticator" if keystore else "AllowAllAuthenticator",
        )
        if keystore:
            config += _TLS.format(keystore=keystore, password=KEYSTORE_PASSWORD)
        self._config.write_text(config)

    def empty(self) -> str:
        """Return the URL of a keyspace whose tables, those of `ENTITIES`, are empty."""
        self.execute(create_keyspace(KEYSPACE, DATA_CENTRE, 1))
        for entity in ENTITIES:
            table = table_name(KEYSPACE, entity)
            self.execute(create_table(KEYSPACE, entity))
            if self.execute(f"SELECT key FROM {table} LIMIT 1"):
                self.execute(f"TRUNCATE {table}")
        return f"cassandra://{self.address}/{KEYSPACE}"

    def execute(self, cql: str, consistency: int = ConsistencyLevel.LOCAL_ONE) -> list[Any]:
        """Send a statement to this node, and return its rows."""
        if self._session is None:
            profile = ExecutionProfile(
                load_balancing_policy=WhiteListRoundRobinPolicy([self._host]),
                request_timeout=START_S,
            )
            cluster = Cluster(
                [(self._host, self._port)],
                port=self._port,
                protocol_version=4,
                execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            )
            self._session = cluster.connect()
        return list(self._session.execute(SimpleStatement(cql, consistency_level=consistency)))

    def kill(self) -> None:
        """Kill the server, which may be paused."""
        if self._session is not None:
            self._session.cluster.shutdown()
            self._session = None
        super().kill()

    def _command(self) -> Sequence[str]:
        flags = {
            "cassandra.config": f"file://{self._config}",
            "cassandra.storagedir": self._folder,
            "cassandra-foreground": "yes",
            "cassandra.ring_delay_ms": 1,
            "cassandra.superuser_setup_delay_ms": 0,
            "jdk.attach.allowAttachSelf": "true",
        }
        if self._is_member and self._host != "127.0.0.1":
            # It must hear of the other nodes before it joins them.
            flags["cassandra.ring_delay_ms"] = 3_000
        else:
            flags["cassandra.skip_wait_for_gossip_to_settle"] = 0
        modules = [
            part
            for option, packages in (("--add-exports", _EXPORTS), ("--add-opens", _OPENS))
            for package in packages
            for part in (option, f"{package}=ALL-UNNAMED")
        ]
        return [
            *("-Xms256m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *(f"-D{name}={value}" for name, value in flags.items()),
            *modules,
            MAIN,
        ]
