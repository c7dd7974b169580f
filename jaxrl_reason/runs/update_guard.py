"""Updates that are skipped one after the other, and numbers that are not finite.

One skipped update is an accident: the next batch is another one. Several in a row are a
run that learns nothing and says that all is well. A guard watches the update functions
of a run. It ends the run with one error that names what is not finite, and keeps the
batch.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.runs.checkpoint_files import named_leaves
from jaxrl_reason.sharding.processes import fetch, is_main

_SKIPPED = "skipped_update_fraction"
# A resumed run has the settings of its checkpoint, and repeats its steps to the bit.
_LOST = (
    ": the same settings lead here again, so start a run with a lower learning rate or "
    "a smaller max_grad_norm"
)
# (state, batch, num_active, ...) -> (state, metric pairs)
Update = Callable[..., tuple[Any, Any]]
# (update, name of its model) -> the function to call in its place
Watch = Callable[[Update, str], Update]


class NotFiniteError(RuntimeError):
    """Numbers that must be finite are not, and training cannot go on."""


class UpdateGuard:
    """Counts the skipped updates of a run's models, and ends the run at a bound.

    Args:
      most_skipped: updates of a model, one after the other, that end the run if all are
        skipped.
      folder: for the last skipped batch, `skipped_<model>.npz`; None to save none.

    Raises:
      ValueError: the bound is below 1.
    """

    def __init__(self, most_skipped: int = 3, folder: str | Path | None = None) -> None:
        if most_skipped < 1:
            raise ValueError(f"most_skipped must be >= 1, got {most_skipped}")
        self.most_skipped = most_skipped
        self.folder = None if folder is None else Path(folder)
        self._watched: list[_WatchedUpdate] = []

    def watch(self, update: Update, name: str, *, at_once: bool = True) -> Update:
        """An update function that is watched.

        Args:
          update: (state, batch, num_active, ...) -> (state, metric pairs), among them
            the fraction of skipped updates.
          name: of the model.
          at_once: whether the function itself raises at the bound. Otherwise `check`
            does, which a loop calls where it can still save its state.

        Returns:
          A function that is called in the same way.
        """
        watched = _WatchedUpdate(self, update, name, at_once)
        same = [x for x in self._watched if x.name == name]
        if same:  # of a later stage
            self._watched.remove(same[0])
        self._watched.append(watched)
        return watched

    def check(self, models: Mapping[str, Any], *, wait: bool = True) -> None:
        """Looks at the updates that were made.

        Args:
          models: the states of models by name, to say which arrays are not finite.
          wait: also look at the newest update, which the device may not have finished.

        Raises:
          NotFiniteError: too many updates, one after the other, were skipped.
        """
        for update in self._watched:
            update.check(models.get(update.name), wait)

    def stop(self, name: str, last: "_Made", state: Any) -> None:
        """Raises the error, and saves the batch of the last update."""
        trees = {"model": state, "batch": last.batch}
        found = not_finite(trees)
        loss, one = (float(x) for x in jax.device_get(last.metrics["loss"]))
        if not np.isfinite(loss / one):
            found = [f"the loss ({loss / one})", *found]
        said = "; ".join(found) or f"the gradient alone ({largest_number(trees)})"
        raise NotFiniteError(
            f"{self.most_skipped} updates of the {name} in a row were skipped, since "
            f"gradients were not finite; not finite: {said}{_advice(found)}"
            f"{self._saved(name, last)}"
        )

    def _saved(self, name: str, last: "_Made") -> str:
        if self.folder is None:
            return ""
        path = self.folder / f"skipped_{name}.npz"
        arrays = dict(named_leaves(fetch(last.batch)))
        if is_main():
            try:
                np.savez(path, num_active=np.asarray(last.num_active), **arrays)
            except OSError as error:  # a full disk must not hide what happened
                return f"; the batch could not be saved: {error}"
        return f"; the last batch is in {path}"


@dataclass(frozen=True)
class _Made:
    """An update that was made."""

    batch: Any
    num_active: Any
    metrics: Any


class _WatchedUpdate:
    """An update function, and how many of its last calls were skipped."""

    def __init__(
        self, guard: UpdateGuard, update: Update, name: str, at_once: bool
    ) -> None:
        self.name = name
        self._guard, self._update, self._at_once = guard, update, at_once
        self._skipped = 0
        self._unread: deque[_Made] = deque()
        self._stops: _Made | None = None

    def __call__(
        self, state: Any, batch: Any, num_active: Any, *given: Any, **named: Any
    ) -> tuple[Any, Any]:
        state, metrics = self._update(state, batch, num_active, *given, **named)
        if _SKIPPED in metrics:
            self._unread.append(_Made(batch, num_active, metrics))
        self._read(keep=1)  # so that the device need not wait for the next batch
        if self._at_once:
            self._stop(state)
        return state, metrics

    def check(self, state: Any, wait: bool) -> None:
        self._read(keep=0 if wait else 1)
        self._stop(state)

    def _read(self, keep: int) -> None:
        while len(self._unread) > keep:
            made = self._unread.popleft()
            skipped = float(made.metrics[_SKIPPED][0]) > 0
            self._skipped = self._skipped + 1 if skipped else 0
            if self._skipped >= self._guard.most_skipped and self._stops is None:
                self._stops = made

    def _stop(self, state: Any) -> None:
        if self._stops is not None:
            self._guard.stop(self.name, self._stops, state)


def check_finite(models: Mapping[str, Any]) -> None:
    """Raises for models that are not worth a checkpoint.

    Args:
      models: states or parameters by name.

    Raises:
      NotFiniteError: an array is nan or infinite; the message names it.
    """
    if found := not_finite(models):
        raise NotFiniteError(
            f"a model must be finite to be saved; not finite: {'; '.join(found)}; the "
            f"checkpoints before are kept{_LOST}"
        )


def not_finite(trees: Mapping[str, Any]) -> list[str]:
    """Names the arrays that have numbers which are not finite, and how many.

    Args:
      trees: arrays of devices or of the host, by the first part of their names.

    Returns:
      One text for each such array.

    Example:
      >>> not_finite({"x": {"a": np.array([1.0, np.nan]), "b": np.ones(2)}})
      ['x/a (nan or inf in 1 of 2)']
    """
    named = _floats(trees)
    counts = fetch(_count_odd([x for _, x in named]))
    return [
        f"{name} (nan or inf in {int(count):,} of {x.size:,})"
        for (name, x), count in zip(named, counts, strict=True)
        if count
    ]


def largest_number(trees: Mapping[str, Any]) -> str:
    """Names the array with the largest number, and that number's size.

    Args:
      trees: arrays of devices or of the host, by the first part of their names.

    Example:
      >>> largest_number({"x": {"a": np.array([1.0, -3e30]), "b": np.ones(2)}})
      'the largest numbers are in x/a, up to 3e+30'
    """
    named = _floats(trees)
    sizes = [float(x) for x in fetch(_largest([x for _, x in named]))]
    if not sizes:
        return "there are no other numbers"
    most = int(np.argmax(sizes))
    return f"the largest numbers are in {named[most][0]}, up to {sizes[most]:.3g}"


def _floats(trees: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name, x)
        for name, x in named_leaves(dict(trees))
        if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating) and x.size
    ]


@jax.jit
def _largest(arrays: list[Any]) -> list[jax.Array]:
    return [jnp.max(jnp.abs(x)).astype(jnp.float32) for x in arrays]


@jax.jit
def _count_odd(arrays: list[Any]) -> list[jax.Array]:
    return [jnp.sum(~jnp.isfinite(x)) for x in arrays]


def _advice(found: list[str]) -> str:
    if any(name.startswith("model/params") for name in found):
        return f"; the parameters are lost{_LOST}"
    if any(name.startswith("batch/") for name in found):
        return "; look at where these inputs are made"
    return "; look at the loss function, the learning rate and the inputs in the batch"
