"""The feature stores that pass one suite; a new one adds its name here."""

REDIS = ("redis 6.2", "redis 7", "redis tls", "redis cluster", "redis cluster tls")
SENTINEL = ("sentinel", "sentinel tls")
BACKENDS = ("lmdb", "memory", *REDIS, *SENTINEL)
