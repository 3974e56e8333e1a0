"""The registry of direct ports, in the key-value store of the Ray cluster (GCS)."""

from __future__ import annotations

from urllib.parse import quote

from ray.experimental import internal_kv


class GcsEndpointRegistry:
    """The `kirana.doors.endpoints.EndpointRegistry` for the replicas of one application.

    All methods block until GCS has answered.
    """

    def __init__(self, application: str) -> None:
        # GCS would take anything after a colon in the namespace as a part of the key.
        self._namespace = f"kirana.{quote(application, safe='')}".encode()

    def write(self, name: str, note: bytes) -> None:
        """Store a note under a name. Replace an earlier note of that name."""
        internal_kv._internal_kv_put(name, note, overwrite=True, namespace=self._namespace)

    def remove(self, name: str) -> None:
        """Delete a note. No-op if it does not exist."""
        internal_kv._internal_kv_del(name, namespace=self._namespace)

    def read(self) -> dict[str, bytes]:
        """Return the notes of all replicas, by name."""
        notes = {}
        for name in internal_kv._internal_kv_list("", namespace=self._namespace):
            note = internal_kv._internal_kv_get(name, namespace=self._namespace)
            if note is not None:
                notes[name.decode()] = note
        return notes
