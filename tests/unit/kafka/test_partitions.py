"""The partition of a key, compared with that of Kafka's Python client."""

from __future__ import annotations

import numpy as np
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as murmur2_of_client
from hypothesis import given
from hypothesis import strategies as st

from kirana.kafka.partitions import murmur2, partitions_of

keys = st.lists(st.binary(max_size=40), max_size=20)


def joined(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(b"".join(texts), dtype=np.uint8)
    return data, np.cumsum([len(text) for text in texts]).astype(np.int64)


@given(keys)
def test_the_hash_is_that_of_kafka(texts: list[bytes]) -> None:
    expected = [murmur2_of_client(text) & 0xFFFFFFFF for text in texts]
    assert murmur2(*joined(texts)).tolist() == expected


@given(keys, st.integers(1, 50))
def test_the_partition_is_that_of_kafka(texts: list[bytes], partitions: int) -> None:
    everything = list(range(partitions))
    choose = DefaultPartitioner()
    expected = [choose(text, everything, everything) for text in texts]
    assert partitions_of(*joined(texts), partitions).tolist() == expected
