"""Folders in and out: the identity bit for bit, and hostile files."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxrl_reason.weights import (
    SpecialTokenIds,
    WeightsError,
    export_hf,
    hf_tensors,
    load_pretrained,
)
from jaxrl_reason.weights.layouts import by_path
from tests.weights.cases import CASES, tensors_of, write_folder

CASE = "llama3"
INDEX = "model.safetensors.index.json"
KEY = "model.layers.1.self_attn.k_proj.weight"


def same_bits(one: Any, other: Any) -> bool:
    one, other = by_path(one), by_path(other)
    return one.keys() == other.keys() and all(
        one[path].dtype == other[path].dtype
        and np.asarray(one[path]).tobytes() == np.asarray(other[path]).tobytes()
        for path in one
    )


@pytest.mark.fast
@pytest.mark.parametrize("case", CASES)
def test_import_export_import_is_the_identity(case: str, tmp_path: Path) -> None:
    first = load_pretrained(write_folder(case, tmp_path / "a"))
    folder = export_hf(
        tmp_path / "b",
        first.config,
        first.params,
        special=first.special,
        family=first.family,
    )
    again = load_pretrained(folder)
    assert same_bits(first.params, again.params)
    wanted = (first.config, first.special, first.family)
    assert (again.config, again.special, again.family) == wanted
    # Outside, the same tensors under the same names.
    plain = {k.removeprefix("language_model."): v for k, v in tensors_of(case).items()}
    assert same_bits(load_file(folder / "model.safetensors"), plain)
    assert same_bits(dict(hf_tensors(first.config, first.params)), plain)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_many_files_and_half_precision(dtype: str, tmp_path: Path) -> None:
    first = load_pretrained(write_folder(CASE, tmp_path / "a"), param_dtype=dtype)
    folder = export_hf(tmp_path / "b", first.config, first.params, largest_file=10_000)
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 2
    index = json.loads((folder / INDEX).read_text())
    size = 4 if dtype == "float32" else 2
    tensors = tensors_of(CASE)
    assert index["weight_map"].keys() == tensors.keys()
    total = sum(tensor.size for tensor in tensors.values())
    assert index["metadata"]["total_size"] == size * total
    assert same_bits(first.params, load_pretrained(folder, param_dtype=dtype).params)
    # Readable as widely as its neighbours.
    modes = {os.stat(path).st_mode for path in folder.iterdir()}
    assert len(modes) == 1


def test_bfloat16_files_widen_exactly(tmp_path: Path) -> None:
    write_folder(CASE, tmp_path)
    half = {k: v.astype(ml_dtypes.bfloat16) for k, v in tensors_of(CASE).items()}
    save_file(half, tmp_path / "model.safetensors")
    wide = load_pretrained(tmp_path).params
    narrow = load_pretrained(tmp_path, param_dtype="bfloat16").params
    assert same_bits(wide, jax.tree.map(lambda x: x.astype("float32"), narrow))


def test_generation_config_says_the_ends(tmp_path: Path) -> None:
    write_folder(CASE, tmp_path)
    said = {"eos_token_id": [2, 9], "temperature": 0.6}
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    assert load_pretrained(tmp_path).special == SpecialTokenIds(
        bos_token_id=1, eos_token_ids=(2, 9)
    )


@pytest.mark.fast
def test_settings_of_a_run_and_no_others(tmp_path: Path) -> None:
    write_folder(CASE, tmp_path)
    config = load_pretrained(tmp_path, context_length=32, remat="full").config
    assert (config.context_length, config.remat) == (32, "full")
    with pytest.raises(ValueError, match="at most the model's"):
        load_pretrained(tmp_path, context_length=65)
    with pytest.raises(ValueError, match="settings must be among"):
        load_pretrained(tmp_path, rope_theta=1.0)


def test_a_head_beside_a_tied_embedding(tmp_path: Path) -> None:
    embedding = tensors_of(CASE)["model.embed_tokens.weight"]
    write_folder(CASE, tmp_path, **{"lm_head.weight": embedding})
    assert "head" not in load_pretrained(tmp_path).params
    write_folder(CASE, tmp_path, **{"lm_head.weight": embedding + 1})
    with pytest.raises(WeightsError, match="ties the head to model"):
        load_pretrained(tmp_path)


def test_old_tables_of_frequencies_and_other_parts_are_passed_over(
    tmp_path: Path,
) -> None:
    table = np.ones(4, np.float32)
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": table}
    load_pretrained(write_folder(CASE, tmp_path / "a", **old))
    eye = {"vision_tower.ln_pre.weight": table, "multi_modal_projector.norm": table}
    load_pretrained(write_folder("mistral_small_3_1", tmp_path / "b", **eye))
    with pytest.raises(WeightsError, match=r"1 tensors extra: vision_tower.ln_pre"):
        load_pretrained(
            write_folder(CASE, tmp_path / "c", **{"vision_tower.ln_pre.weight": table})
        )


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor.copy() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def cut_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"vocab_size": 96', '"vocab_size": NaN'))


def claim_header(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])


def claim_offset(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    header[KEY]["data_offsets"][1] = 2**62
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


HOSTILE = {
    "truncated": (truncate, "model.safetensors: damaged"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
    "header of 2**63 bytes": (lambda f: claim_header(f, 2**63), "damaged"),
    "header of 0 bytes": (lambda f: claim_header(f, 0), "damaged"),
    "offset past the end": (claim_offset, "damaged"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: the file is"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"must hold model.safetensors or .*index.json, got \['config.json'\]",
    ),
    "nan": (cut_config, "NaN is not JSON"),
    "missing": (
        lambda f: rewrite(f, lambda t: t.pop(KEY)),
        rf"1 tensors missing: {KEY} \(16, 32\)",
    ),
    "extra": (
        lambda f: rewrite(f, lambda t: t.update({"model.extra": t[KEY]})),
        r"1 tensors extra: model.extra \(16, 32\)",
    ),
    "shape": (
        lambda f: rewrite(f, lambda t: t.update({KEY: t[KEY].T.copy()})),
        rf"of another shape: {KEY} must be \(16, 32\), got \(32, 16\)",
    ),
    "type": (
        lambda f: rewrite(f, lambda t: t.update({KEY: t[KEY].astype(np.int8)})),
        rf"{KEY} must be one of .*, got I8",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_files_name_file_tensor_and_shapes(name: str, tmp_path: Path) -> None:
    damage, message = HOSTILE[name]
    damage(write_folder(CASE, tmp_path))
    with pytest.raises(WeightsError, match=message) as caught:
        load_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def write_index(folder: Path, **changes: Any) -> None:
    """Two files and their index; changes move tensors to other places."""
    tensors = tensors_of(CASE)
    places = {name: f"{i % 2}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        save_file(
            {n: t for n, t in tensors.items() if places[n] == file}, folder / file
        )
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {**places, **changes}}
    (folder / INDEX).write_text(json.dumps(index))


def test_an_index_of_two_files(tmp_path: Path) -> None:
    whole = load_pretrained(write_folder(CASE, tmp_path)).params
    write_index(tmp_path)
    assert same_bits(load_pretrained(tmp_path).params, whole)


@pytest.mark.parametrize(
    "place",
    [
        "../0.safetensors",
        "/etc/passwd",
        "a/0.safetensors",
        "a\\0.safetensors",
        "C:0.safetensors",
        "..",
        "0.bin",
        "0\0.safetensors",
        7,
        None,
    ],
)
def test_an_index_stays_in_its_folder(tmp_path: Path, place: Any) -> None:
    folder = write_folder(CASE, tmp_path / "model")
    write_index(folder, **{KEY: place})
    # Were the path followed, it would be found.
    shutil.copy(folder / "0.safetensors", tmp_path / "0.safetensors")
    with pytest.raises(WeightsError, match=f"{KEY} must be in a .safetensors file of"):
        load_pretrained(folder)


def test_an_index_that_lies(tmp_path: Path) -> None:
    write_folder(CASE, tmp_path)
    write_index(tmp_path, **{"model.extra": "0.safetensors"})
    with pytest.raises(WeightsError, match=r"0.safetensors: .*missing \['model.extra'"):
        load_pretrained(tmp_path)
    (tmp_path / "0.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"0.safetensors: the file is missing"):
        load_pretrained(tmp_path)
    (tmp_path / INDEX).write_text('{"weight_map": []}')
    with pytest.raises(WeightsError, match="weight_map must be a non-empty object"):
        load_pretrained(tmp_path)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    model = load_pretrained(write_folder(CASE, tmp_path / "a"))
    config, params = model.config, model.params
    with pytest.raises(ValueError, match="folder must be absent or empty"):
        export_hf(tmp_path / "a", config, params)
    new = tmp_path / "b"
    with pytest.raises(ValueError, match="dtype must be float32 or bfloat16"):
        export_hf(new, config, params, dtype="int8")
    with pytest.raises(ValueError, match="largest_file must be >= 1, got 0"):
        export_hf(new, config, params, largest_file=0)
    with pytest.raises(ValueError, match=r"these differ: \['head'\]"):
        export_hf(new, replace(config, tie_embeddings=False), params)
    odd = replace(config, attention_bias=True)
    with pytest.raises(ValueError, match="must be ones that mistral"):
        export_hf(new, odd, params, family="mistral")
    assert not new.exists()
