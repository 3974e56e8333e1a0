"""A single Kafka server (KRaft) on free ports, which tests can kill, restart and pause."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kirana.serving.environment import free_ports
from tests.java_server import JavaServer

CLUSTER_ID = "a2lyYW5hLXRlc3RzLTAwMQ"
"""A UUID in base 64. A random one may begin with a dash, which the tool takes for an option."""

USER, PASSWORD = "shop", "of-the-shop"
KEYSTORE_PASSWORD = "of-the-keystore"

_CONFIG = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENTS://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENTS
listener.security.protocol.map=CLIENTS:{protocol},CONTROLLER:PLAINTEXT
log.dirs={folder}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""

_SECURE = """
ssl.keystore.type=PKCS12
ssl.keystore.location={keystore}
ssl.keystore.password={password}
ssl.truststore.type=PEM
ssl.truststore.location={certificate}
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.clients.plain.sasl.jaas.config=\\
  org.apache.kafka.common.security.plain.PlainLoginModule required \\
  username="{user}" password="{secret}" user_{user}="{secret}";
"""


_JAVA = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class KafkaServer(JavaServer):
    """A server that runs during the `with` block. Topics are not made by their use.

    With a `keystore` and its `certificate`, it takes clients with TLS and a password only.
    """

    need = "kafka"
    start_timeout_s = 120

    def __init__(
        self, folder: Path, keystore: Path | None = None, certificate: Path | None = None
    ) -> None:
        port, controller = free_ports(2)
        super().__init__(folder, port)
        self._config = folder / "server.properties"
        config = _CONFIG.format(
            folder=folder,
            port=port,
            controller=controller,
            protocol="SASL_SSL" if keystore else "PLAINTEXT",
        )
        if keystore:
            config += _SECURE.format(
                keystore=keystore,
                password=KEYSTORE_PASSWORD,
                certificate=certificate,
                user=USER,
                secret=PASSWORD,
            )
        self._config.write_text(config)

    def start(self) -> None:
        """Start the server, and wait until it accepts clients. The first start makes its data."""
        if not (self._folder / "data").exists():
            tool = ("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._config))
            assert self._java(*_JAVA, *tool).wait() == 0, self._log.read_text()
        super().start()

    def _command(self) -> Sequence[str]:
        return [*_JAVA, "kafka.Kafka", str(self._config)]
