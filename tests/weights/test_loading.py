"""Arrays go straight onto their devices, part by part."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrl_reason.weights import loading, pretrained
from jaxrl_reason.weights.names import ROWS
from jaxrl_reason.weights.safetensors_folder import SafetensorsFolder
from tests.weights.cases import tensors_of, write_folder

SHARDED = """
    import json, sys
    import jax, numpy as np
    from jaxrl_reason.sharding import make_mesh
    from jaxrl_reason.weights import export_hf, load_pretrained
    from jaxrl_reason.weights.layouts import by_path
    from jaxrl_reason.weights.safetensors_folder import SafetensorsFolder

    folder, out = sys.argv[1:]
    whole = by_path(load_pretrained(folder).params)
    largest, reads = {}, {}
    read = SafetensorsFolder.read

    def spy(self, name, index):
        part = read(self, name, index)
        fraction = part.size / np.prod(self.shapes[name])
        largest[name] = max(largest.get(name, 0), fraction)
        reads[name] = reads.get(name, 0) + 1
        return part

    SafetensorsFolder.read = spy
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    model = load_pretrained(folder, mesh=mesh)
    params = by_path(model.params)
    same = all(np.array_equal(params[path], whole[path]) for path in whole)
    export_hf(out, model.config, model.params)
    specs = {p: str(tuple(params[p].sharding.spec)) for p in params}
    key = "model.layers.0.self_attn.q_proj.weight"
    print(json.dumps([same, specs["layers/attention/query"], largest[key], reads[key]]))
"""


def test_each_device_s_part_is_read_once_and_no_more(
    tmp_path: Path, eight_devices_run: Callable[..., Any]
) -> None:
    folder = write_folder("llama3", tmp_path / "a")
    out = tmp_path / "b"
    same, spec, largest, reads = eight_devices_run(SHARDED, str(folder), str(out))
    assert same
    assert spec == "(None, 'fsdp', 'tensor', None)"
    # A quarter of the tensor at a time; the two replicas read it together.
    assert (largest, reads) == (0.25, 4)
    assert (out / "config.json").exists()


def test_one_array_at_a_time_lies_in_host_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def spy(source: Any, layout: Any, index: Any) -> np.ndarray:
        block = read(source, layout, index)
        sizes.append(block.nbytes)
        return block

    read = loading._read
    monkeypatch.setattr(loading, "_read", spy)
    model = pretrained.load_pretrained(write_folder("llama2", tmp_path))
    assert len(sizes) == len(ROWS) - 6  # No biases, no QK-norm.
    whole = sum(tensor.nbytes for tensor in tensors_of("llama2").values())
    assert sum(sizes) == whole
    assert max(sizes) < whole / 4
    assert model.params["layers"]["attention"]["query"].shape == (2, 32, 4, 8)


def test_files_are_let_go(tmp_path: Path) -> None:
    source = SafetensorsFolder(write_folder("llama2", tmp_path))
    assert source.shapes["model.norm.weight"] == (32,)
    source.close()
    with pytest.raises(KeyError):
        source.read("model.norm.weight", (slice(0, 1),))
