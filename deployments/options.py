"""What every deployment of Kirana has in common."""

from __future__ import annotations

from typing import Any

OPTIONS: dict[str, Any] = {
    # without a fraction the third replica of a machine with two cores would wait for ever
    "ray_actor_options": {"num_cpus": 0.1},
    "health_check_period_s": 5,
    # Serve's own drain, then that of the direct port (see `deployments.ingress.FINISH_S`)
    "graceful_shutdown_timeout_s": 40,
    # the new replica first, then the old one goes: a part of one replica is never away
    "max_surge_percent": 25,
    # what is wrong with a configuration stays wrong: a few attempts, then its message
    "max_constructor_retry_count": 2,
    "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
}
