"""Sends weights to a server, under their Hugging Face names."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxrl_reason.serving.endpoint import Endpoint, EngineError
from jaxrl_reason.weights.hf_export import LARGEST_FILE
from jaxrl_reason.weights.safetensors_folder import INDEX, ONE_FILE

Tensors = Iterable[tuple[str, np.ndarray]]
# (folder, version) -> the POSTs that make a server read it: paths and bodies
ReloadRequests = Callable[[str, int], Sequence[tuple[str, dict[str, Any] | None]]]

PREFIX = "version-"


class WeightTransport(Protocol):
    """Sends weights to a server: by files here; write a class for NCCL or RDMA."""

    def send(self, tensors: Tensors, version: int) -> None:
        """Returns when the server has the weights, or has agreed to fetch them.

        Args:
          tensors: an iterator of names and arrays.
          version: that the server reports from now on, if it can.

        Raises:
          EngineError: the server did not accept them.
        """


def vllm_requests(folder: str, version: int) -> list[tuple[str, dict[str, Any] | None]]:
    """Requests that make a vLLM server in development mode read a folder of weights.

    The workers read the folder in place, cached prefixes of the old weights are
    dropped, and the version is set.

    >>> [path for path, _ in vllm_requests("/weights/version-00000003", 3)]
    ['/collective_rpc', '/reset_prefix_cache', '/update_weight_version']
    """
    reload = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
    return [
        ("/collective_rpc", reload),
        ("/reset_prefix_cache", None),
        ("/update_weight_version", {"new_version": str(version)}),
    ]


class FolderTransport:
    """Safetensors in a folder that the server reads, one folder per version.

    A folder is moved into place when it is complete, and its name is never reused: a
    server cannot read a partial folder or mistake an old one for the new one.

    Args:
      endpoint: of the server; its timeout must be long enough for reading the weights.
      folder: visible to the server under the same path; created.
      requests: the POSTs that make the server read; see `vllm_requests`.
      keep: how many of the newest folders to keep.
      largest_file: bytes of tensors in one file; one file at a time is in host memory.

    Raises:
      ValueError: keep or largest_file is below 1.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        folder: str | Path,
        *,
        requests: ReloadRequests = vllm_requests,
        keep: int = 2,
        largest_file: int = LARGEST_FILE,
    ) -> None:
        for name, value in (("keep", keep), ("largest_file", largest_file)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.endpoint, self.folder = endpoint, Path(folder).absolute()
        self.requests, self.keep, self.largest_file = requests, keep, largest_file

    def send(self, tensors: Tensors, version: int) -> None:
        """Writes the folder, makes the server read it, and removes old ones.

        Raises:
          EngineError: the server did not read it; the folder is kept.
        """
        target = self._write(tensors, version)
        for path, body in self.requests(str(target), version):
            answer = self.endpoint.request("POST", path, body)
            # vLLM reports with status 200 that a cache could not be reset.
            if isinstance(answer, dict) and answer.get("success") is False:
                raise EngineError(f"POST {self.endpoint.url}{path} answered {answer}")
        self._remove_old(target)

    def _write(self, tensors: Tensors, version: int) -> Path:
        target = self.folder / f"{PREFIX}{version:08d}"
        temporary = self.folder / f".tmp-{target.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_tensors(temporary, tensors, self.largest_file)
        if target.exists():  # an earlier run's, or other parameters of this step
            shutil.rmtree(target)
        os.replace(temporary, target)
        return target

    def _remove_old(self, newest: Path) -> None:
        """By age, not by number: a resumed run continues from an earlier version."""
        found = [path for path in self.folder.glob(f"{PREFIX}*") if path != newest]
        found.sort(key=lambda path: path.stat().st_mtime)
        for path in found[: max(0, len(found) + 1 - self.keep)]:
            shutil.rmtree(path)


def write_tensors(folder: Path, tensors: Tensors, largest_file: int) -> None:
    """Writes tensors as one safetensors file, or as several with an index."""
    from safetensors.numpy import save_file

    def save(name: str, part: dict[str, np.ndarray]) -> None:
        save_file(part, folder / name, metadata={"format": "pt"})
        # The package creates files that only their owner may read.
        shutil.copymode(folder, folder / name)
        (folder / name).chmod((folder / name).stat().st_mode & 0o666)

    part: dict[str, np.ndarray] = {}
    places: dict[str, str] = {}
    filled, total, files = 0, 0, 0
    for name, tensor in tensors:
        if part and filled + tensor.nbytes > largest_file:
            files += 1
            save(f"model-{files:05d}.safetensors", part)
            part, filled = {}, 0
        part[name] = tensor
        places[name] = f"model-{files + 1:05d}.safetensors"
        filled, total = filled + tensor.nbytes, total + tensor.nbytes
    if not files:
        save(ONE_FILE, part)
        return
    save(f"model-{files + 1:05d}.safetensors", part)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
