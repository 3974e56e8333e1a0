"""A single Kafka server (KRaft) on free ports, which tests can kill, restart and pause."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

from kirana.serving.environment import free_ports
from tests.needs import skip_missing
from tests.waiting import wait_for

JARS = Path(__file__).parents[1] / ".cache" / "kafka"
START_S = 120

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


def _require() -> None:
    """Skip the test if Java or the jars of Kafka are missing."""
    if shutil.which("java") is None:
        skip_missing("java is missing")
    if not (JARS / ".fetched").exists():
        skip_missing(f"the jars of Kafka are missing from {JARS}")


class KafkaServer:
    """A server that runs during the `with` block. Topics are not made by their use.

    With a `keystore` and its `certificate`, it takes clients with TLS and a password only.
    """

    def __init__(
        self, folder: Path, keystore: Path | None = None, certificate: Path | None = None
    ) -> None:
        self._port, controller = free_ports(2)
        self._log = folder / "log"
        self._config = folder / "server.properties"
        config = _CONFIG.format(
            folder=folder,
            port=self._port,
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

    def __enter__(self) -> KafkaServer:
        _require()
        format_ = ("format", "-t", CLUSTER_ID, "-c", str(self._config))
        assert self._java("kafka.tools.StorageTool", *format_).wait() == 0, self._log.read_text()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the server, with the data of its folder, and wait until it accepts clients."""
        self._process = self._java("kafka.Kafka", str(self._config))
        try:
            wait_for(self._serves, self._log.read_text, ignoring=OSError, timeout_s=START_S)
        except AssertionError:
            self.kill()
            raise

    def _java(self, *command: str) -> subprocess.Popen[bytes]:
        options = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*"]
        with self._log.open("ab") as log:
            return subprocess.Popen(["java", *options, *command], stdout=log, stderr=log)

    def _serves(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with socket.create_connection(("127.0.0.1", self._port), timeout=1):
            return True

    def kill(self) -> None:
        """Kill the server, which may be paused."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop the process: connections stay open, but requests get no answer."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)
