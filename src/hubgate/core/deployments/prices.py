"""What Inference Endpoints cost an hour. Their own API has no price: it is joined from the list of hardware."""

from __future__ import annotations

from collections.abc import Sequence

from hubgate.domain.deployments import BILLED, Hardware
from hubgate.domain.hub import Deployment


def hardware_of(deployment: Deployment, hardware: Sequence[Hardware]) -> Hardware | None:
    """What an Inference Endpoint runs on; `None` if it is not offered any more."""
    where, what = deployment.region, deployment.hardware
    return next(
        (
            one
            for one in hardware
            if f"{one.vendor} {one.region}" == where and f"{one.instance_type} {one.instance_size}" == what
        ),
        None,
    )


def cost_now(deployment: Deployment, hardware: Hardware | None) -> float | None:
    """US dollars an hour for the replicas that run now; `None` if the price is unknown."""
    if deployment.state not in BILLED:
        return 0.0
    replicas = deployment.target_replicas
    if replicas is None:
        replicas = max(1, deployment.min_replicas or 0)
    return (
        None if hardware is None else hardware.price_per_hour * max(replicas, deployment.ready_replicas or 0)
    )


def cost_at_most(deployment: Deployment, hardware: Hardware | None) -> float | None:
    """US dollars an hour if all replicas run; 0 while somebody has to resume it; `None` if the price is unknown."""
    if deployment.paused:
        return 0.0
    return None if hardware is None else hardware.price_per_hour * (deployment.max_replicas or 1)
