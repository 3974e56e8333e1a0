"""Notes in the cluster's own key-value store (GCS), which every replica sees."""

from __future__ import annotations

from urllib.parse import quote

from ray.experimental import internal_kv


class GcsEndpointRegistry:
    """Implements `kirana.doors.endpoints.EndpointRegistry` for the replicas of one application."""

    def __init__(self, application: str) -> None:
        # GCS takes what follows the first colon of a namespace for a part of the key
        self._namespace = f"kirana.{quote(application, safe='')}".encode()

    def write(self, name: str, note: bytes) -> None:
        internal_kv._internal_kv_put(name, note, overwrite=True, namespace=self._namespace)

    def remove(self, name: str) -> None:
        internal_kv._internal_kv_del(name, namespace=self._namespace)

    def read(self) -> dict[str, bytes]:
        found = {}
        for name in internal_kv._internal_kv_list("", namespace=self._namespace):
            note = internal_kv._internal_kv_get(name, namespace=self._namespace)
            if note is not None:
                found[name.decode()] = note
        return found
