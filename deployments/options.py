"""The Serve options that all deployments of Kirana have in common."""

from __future__ import annotations

from typing import Any

OPTIONS: dict[str, Any] = {
    # A replica reserves one CPU by default, so a machine with two CPUs could run only two.
    "ray_actor_options": {"num_cpus": 0.1},
    "health_check_period_s": 5,
    # Enough for Serve's own drain and then for the drain of the direct port (`ingress.DRAIN_S`).
    "graceful_shutdown_timeout_s": 40,
    # During an update, a new replica starts before the old one stops, so that even a deployment
    # with one replica stays available.
    "max_surge_percent": 25,
    # A wrong configuration stays wrong, so give up after a few attempts and show the error.
    "max_constructor_retry_count": 2,
    "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
}
