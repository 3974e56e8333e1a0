"""The feature stores that pass one suite; a new one adds its name here."""

BACKENDS = (
    "lmdb",
    "memory",
    "redis 6.2",
    "redis 7",
    "redis tls",
    "redis cluster",
    "redis cluster tls",
    "sentinel",
    "sentinel tls",
)
