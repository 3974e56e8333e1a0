"""What every deployment of Kirana has in common."""

from __future__ import annotations

from typing import Any

OPTIONS: dict[str, Any] = {
    # without a fraction the third replica of a machine with two cores would wait for ever
    "ray_actor_options": {"num_cpus": 0.1},
    # replicas are asynchronous: the default of 5 would leave them idle
    "max_ongoing_requests": 512,
    "health_check_period_s": 5,
    "graceful_shutdown_timeout_s": 10,
    "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
}
