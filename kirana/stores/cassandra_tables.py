"""The tables of feature rows in Cassandra: one per entity, in one keyspace."""

from __future__ import annotations

import re
from collections.abc import Collection

from cassandra.cluster import Session

from kirana.cassandra.errors import FAILURES, message_of
from kirana.cassandra.session import cluster_of
from kirana.cassandra.url import CassandraUrl
from kirana.errors import Conflict, Unavailable

COPIES = 3
"""How many copies of each row a new keyspace has, if its data centre has so many nodes."""

SPECULATIVE_RETRY = "50ms"
"""After this time without a reply, a node asks one more node that has a copy.

With Cassandra's default, the 99th percentile of the table's reads, a node that was frozen for
seconds may freeze the reads of others for as long, because its own reads raised the percentile.
"""

TABLE_NAME = re.compile(r"\w{1,48}", re.ASCII)


def parts_of(group: str) -> tuple[str, str]:
    """Return the entity and the last part of a group's full name, as in `product.stats`."""
    entity, _, name = group.partition(".")
    return entity, name


def table_name(keyspace: str, entity: str) -> str:
    """Return the quoted name of an entity's table."""
    return f'"{keyspace}"."{entity}"'


def create_keyspace(keyspace: str, data_centre: str, copies: int) -> str:
    """Return the statement that makes a keyspace with this many copies in a data centre."""
    replication = f"{{'class': 'NetworkTopologyStrategy', '{data_centre}': {copies}}}"
    return f'CREATE KEYSPACE IF NOT EXISTS "{keyspace}" WITH replication = {replication}'


def create_table(keyspace: str, entity: str) -> str:
    """Return the statement that makes the table of an entity.

    A partition holds all groups of one key, a row the value of one group.
    """
    return (
        f"CREATE TABLE IF NOT EXISTS {table_name(keyspace, entity)} "
        '(key text, "group" text, value blob, PRIMARY KEY (key, "group")) '
        f"WITH speculative_retry = '{SPECULATIVE_RETRY}'"
    )


class CassandraTables:
    """Finds and makes the tables of a keyspace. Calls block, and each opens a connection.

    Each method raises `Unavailable` if the cluster does not answer or refuses a statement.
    """

    def __init__(self, url: CassandraUrl) -> None:
        self._url = url

    def missing(self, entities: Collection[str]) -> list[str]:
        """Return the entities that have no table, in order."""
        with _Connection(self._url) as connection:
            return connection.missing(entities)

    def create(self, entities: Collection[str]) -> list[str]:
        """Make the keyspace and the tables that are missing. Return the entities that got one.

        Only one process may do this at a time, because Cassandra can't make the same table twice at
        once. Raise `Conflict` if a name can't be that of a table. No table is made then.
        """
        for entity in entities:
            if not TABLE_NAME.fullmatch(entity):
                raise Conflict(
                    f"'{entity}' can't be the name of a table in Cassandra: an entity may have at "
                    "most 48 letters, digits and underscores"
                )
        with _Connection(self._url) as connection:
            missing = connection.missing(entities)
            if missing:
                connection.create(missing)
            return missing


class _Connection:
    """A connection that lasts until the end of a `with` block, and its statements."""

    def __init__(self, url: CassandraUrl) -> None:
        self._url = url

    def __enter__(self) -> _Connection:
        try:
            # The driver looks up the names of the hosts here.
            self._cluster = cluster_of(self._url)
        except FAILURES as error:
            raise Unavailable(message_of(self._url.name, error)) from error
        try:
            self._session: Session = self._cluster.connect()
        except FAILURES as error:
            self._cluster.shutdown()
            raise Unavailable(message_of(self._url.name, error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    def missing(self, entities: Collection[str]) -> list[str]:
        query = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s"
        tables = {row[0] for row in self._run(query, (self._url.keyspace,))}
        return sorted(set(entities) - tables)

    def create(self, entities: Collection[str]) -> None:
        keyspace = self._url.keyspace
        query = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s"
        # The user of the URL may be allowed to make tables, but not keyspaces.
        if not self._run(query, (keyspace,)):
            self._run(create_keyspace(keyspace, *self._replication()))
        for entity in entities:
            self._run(create_table(keyspace, entity))
        if not self._cluster.control_connection.wait_for_schema_agreement():
            raise Unavailable(f"the nodes of {self._url.name} do not agree on their tables yet")

    def _replication(self) -> tuple[str, int]:
        """Return the data centre of a new keyspace, and the number of copies there."""
        centres = [host.datacenter for host in self._cluster.metadata.all_hosts()]
        centre = self._url.data_centre or centres[0]
        return centre, self._url.replication or min(COPIES, max(centres.count(centre), 1))

    def _run(self, cql: str, parameters: tuple[str, ...] | None = None) -> list[tuple[str, ...]]:
        try:
            return list(self._session.execute(cql, parameters))
        except FAILURES as error:
            raise Unavailable(message_of(self._url.name, error)) from error
