"""The hardware of Inference Endpoints, with prices and quota, as `GET /provider/{namespace}` returns it.

The fields are those that huggingface_hub 2.4.0 reads. Prices, GPU memory and the memory of CPU instances are from
Hugging Face's page "Pricing" (hf-endpoints-documentation, commit 1129396), regions and the memory beside GPUs from
replies that others published (huggingface_hub#4638, #4672). Guesses: the quota counts the replicas that an endpoint
may reach, and a CPU instance uses one accelerator for each of its CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_REGIONS = {"aws": ("us-east-1", "eu-west-1"), "azure": ("eastus",), "gcp": ("us-east4",)}
MAX_ACCELERATORS = {"cpu": 60, "gpu": 4, "neuron": 0}
"""Of each instance type, by accelerator."""


@dataclass(frozen=True)
class Hardware:
    """A row of the price list."""

    vendor: str
    accelerator: str
    instance_type: str
    instance_size: str
    architecture: str
    accelerators: int
    memory: float
    gpu_memory: int | None
    price: float
    status: str = "available"

    def named(self) -> tuple[str, str, str, str]:
        """What an endpoint's `compute` and `provider` name, without the region."""
        return self.vendor, self.accelerator, self.instance_type, self.instance_size


def _cpus(vendor: str, kind: str, architecture: str, prices: Sequence[float]) -> list[Hardware]:
    return [
        Hardware(
            vendor, "cpu", kind, f"x{1 << step}", architecture, 1 << step, 2.0 * (1 << step), None, price
        )
        for step, price in enumerate(prices)
    ]


HARDWARE = (
    *_cpus("aws", "intel-spr", "Intel Sapphire Rapids", (0.033, 0.067, 0.134, 0.268, 0.536)),
    *_cpus("azure", "intel-xeon", "Intel Xeon", (0.06, 0.12, 0.24, 0.48)),
    *_cpus("gcp", "intel-spr", "Intel Sapphire Rapids", (0.05, 0.1, 0.2, 0.4)),
    Hardware("aws", "cpu", "intel-icl", "x1", "Intel Ice Lake", 1, 2.0, None, 0.032, "deprecated"),
    Hardware("aws", "gpu", "nvidia-t4", "x1", "Nvidia T4", 1, 11.0, 14, 0.5),
    Hardware("aws", "gpu", "nvidia-l4", "x1", "Nvidia L4", 1, 30.0, 24, 0.8),
    Hardware("aws", "gpu", "nvidia-l4", "x4", "Nvidia L4", 4, 186.0, 96, 3.8),
    Hardware("aws", "gpu", "nvidia-a100", "x1", "Nvidia A100", 1, 174.0, 80, 2.5, "low_availability"),
    Hardware("aws", "gpu", "nvidia-h200", "x8", "Nvidia H200", 8, 1800.0, 1128, 40.0),
    Hardware("aws", "neuron", "inf2", "x1", "AWS Inferentia2", 1, 14.5, 32, 0.75),
    Hardware("gcp", "gpu", "nvidia-t4", "x1", "Nvidia T4", 1, 11.0, 16, 0.5),
    Hardware("gcp", "gpu", "nvidia-l4", "x1", "Nvidia L4", 1, 12.0, 24, 0.7),
    Hardware("gcp", "gpu", "nvidia-a100", "x1", "Nvidia A100", 1, 174.0, 80, 3.6, "not_available"),
)


def find_hardware(body: Mapping[str, Any], hardware: Sequence[Hardware] = HARDWARE) -> Hardware | None:
    """The row that an endpoint's body names."""
    compute, provider = body["compute"], body["provider"]
    named = (
        provider["vendor"],
        compute["accelerator"],
        compute["instanceType"],
        compute["instanceSize"],
    )
    if provider["region"] not in _REGIONS.get(provider["vendor"], ()):
        return None
    return next((row for row in hardware if row.named() == named), None)


def used_accelerators(bodies: Sequence[Mapping[str, Any]], vendor: str, instance_type: str) -> int:
    """How many accelerators of a type the endpoints of a namespace use; `bodies` are those that are not paused."""
    used = 0
    for body in bodies:
        row = find_hardware(body)
        if row and (row.vendor, row.instance_type) == (vendor, instance_type):
            used += row.accelerators * body["compute"]["scaling"]["maxReplica"]
    return used


def provider_reply(
    hardware: Sequence[Hardware], bodies: Sequence[Mapping[str, Any]], quota: Mapping[str, int]
) -> dict[str, Any]:
    """The reply to `GET /provider/{namespace}`; `quota` is by accelerator, for each instance type."""
    return {
        "vendors": [
            {
                "name": vendor,
                "status": "available",
                "regions": [
                    {
                        "name": region,
                        "status": "available",
                        "computes": [
                            _compute(row, region, bodies, quota) for row in hardware if row.vendor == vendor
                        ],
                    }
                    for region in regions
                ],
            }
            for vendor, regions in _REGIONS.items()
        ]
    }


def _compute(
    row: Hardware, region: str, bodies: Sequence[Mapping[str, Any]], quota: Mapping[str, int]
) -> dict[str, Any]:
    used = used_accelerators(bodies, row.vendor, row.instance_type)
    compute = {
        "id": f"{row.vendor}-{region}-{row.instance_type}-{row.instance_size}",
        "accelerator": row.accelerator,
        "instanceType": row.instance_type,
        "instanceSize": row.instance_size,
        "architecture": row.architecture,
        "numAccelerators": row.accelerators,
        "memoryGb": row.memory,
        "pricePerHour": row.price,
        "status": row.status,
        "quota": {"maxAccelerators": quota[row.accelerator], "usedAccelerators": used},
    }
    if row.gpu_memory is not None:
        return {**compute, "gpuMemoryGb": row.gpu_memory}
    return {**compute, "numCpus": row.accelerators}
