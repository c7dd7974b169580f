"""What XLA is told of an NVIDIA card that is not there.

The numbers are what CUDA reports of each card (deviceQuery) and its data sheet says;
XLA reads them as a text proto, GpuTargetConfigProto.
"""

from collections.abc import Mapping
from types import MappingProxyType

# Of compute capability 9.0 and 10.0 alike (CUDA programming guide, table of technical
# specifications).
_COMMON = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49152,
    "shared_memory_per_core": 233472,
    "threads_per_core_limit": 2048,
    "fpus_per_core": 128,
    "block_dim_limit_x": 2147483647,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "shared_memory_per_block_optin": 232448,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
}
# Of each card: multiprocessors, bytes a second, L2, GHz, bytes of memory, capability.
_CARDS: Mapping[str, tuple[str, dict[str, float], int]] = MappingProxyType(
    {
        "h100": (
            "NVIDIA H100 80GB HBM3",
            {
                "core_count": 132,
                "memory_bandwidth": 3352320000000,
                "l2_cache_size": 52428800,
                "clock_rate_ghz": 1.98,
                "device_memory_size": 84942979072,
            },
            9,
        ),
        "h200": (
            "NVIDIA H200",
            {
                "core_count": 132,
                "memory_bandwidth": 4800000000000,
                "l2_cache_size": 62914560,
                "clock_rate_ghz": 1.98,
                "device_memory_size": 150000000000,
            },
            9,
        ),
        "b200": (
            "NVIDIA B200",
            {
                "core_count": 148,
                "memory_bandwidth": 7700000000000,
                "l2_cache_size": 132644864,
                "clock_rate_ghz": 1.965,
                "device_memory_size": 191000000000,
            },
            10,
        ),
    }
)


def target_config(name: str) -> str:
    """The text proto of a card.

    Args:
      name: h100, h200 or b200.

    Returns:
      A GpuTargetConfigProto, without cuDNN, which is not needed to compile.
    """
    title, own, capability = _CARDS[name]
    values = {**_COMMON, **own}
    fields = "\n".join(f"  {name}: {value}" for name, value in values.items())
    return (
        f"gpu_device_info {{\n{fields}\n"
        f"  cuda_compute_capability {{ major: {capability} }}\n}}\n"
        f'platform_name: "CUDA"\n'
        f"runtime_version {{ major: 12 minor: 9 }}\n"
        f'device_description_str: "{title}"\n'
    )
