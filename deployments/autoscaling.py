"""An autoscaling policy that also counts the requests on direct ports. Serve can't see these."""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingContext

DIRECT_ONGOING = "direct_ongoing"
"""The metric that each replica of the ingress reports: ongoing requests on its direct port."""


def by_ongoing_requests(ctx: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Return how many replicas are needed for `target_ongoing_requests` requests per replica.

    Requests through Serve and requests on direct ports are counted. The number may be fractional.
    The second value, the state of the policy, is always empty.
    """
    direct = (ctx.aggregated_metrics or {}).get(DIRECT_ONGOING, {})
    ongoing = ctx.total_num_requests + sum(direct.values())
    assert ctx.config is not None
    return ongoing / ctx.config.target_ongoing_requests, {}
