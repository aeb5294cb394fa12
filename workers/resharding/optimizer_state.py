"""Tell the state of an optimizer from the weights of a network, by the names MindSpore gives."""

from __future__ import annotations

from collections.abc import Collection

# In front of the name of a weight: what mindspore.nn.optim clones for each of them.
_PREFIXES = frozenset(
    "accu_grads accum accum_update adam_m adam_v ax ax_ exp_avg exp_avg_sq exp_inf lamb_m lamb_v"
    " linear max_exp_avg_sq mean_grad mean_square moment moment1 moment2 moments prev stat"
    " step_size vhat".split()
)
_COUNTERS = frozenset(
    "beta1_power beta2_power current_iterator_step global_step last_overflow_iterator_step"
    " learning_rate loss_scale momentum scale_sense weight_decay".split()
)


def is_optimizer_state(name: str, names: Collection[str]) -> bool:
    """Return whether an entry of a checkpoint is of its optimizer.

    Args:
        names: all entries. ``moments.x`` is state only if ``x`` is among them.
    """
    prefix, _, weight = name.partition(".")
    return name in _COUNTERS or (prefix in _PREFIXES and weight in names)
