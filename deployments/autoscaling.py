"""A policy of autoscaling that counts what Serve can't see: requests on the direct ports."""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingContext

DIRECT_ONGOING = "direct_ongoing"


def by_ongoing_requests(ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Return as many replicas as `target_ongoing_requests` asks for, through both doors."""
    direct = (ctx.aggregated_metrics or {}).get(DIRECT_ONGOING, {})
    ongoing = ctx.total_num_requests + sum(direct.values())
    assert ctx.config is not None
    return ongoing / ctx.config.target_ongoing_requests, {}
