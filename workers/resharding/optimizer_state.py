"""Tell the state of an optimizer from the weights of a network, by the names MindSpore gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

# In front of the name of a weight: what mindspore.nn.optim clones for each of them.
_PREFIXES = frozenset(
    "accu_grads accum accum_update adam_m adam_v ax ax_ exp_avg exp_avg_sq exp_inf lamb_m lamb_v"
    " linear max_exp_avg_sq mean_grad mean_square moment moment1 moment2 moments momentum_buf prev"
    " stat step_size vhat".split()
)
# Words that a cell may well have for a name, and what their optimizer keeps beside them: a network
# with a parameter "weight" and a cell "linear" has a "linear.weight", too.
_BESIDE: Mapping[str, str] = MappingProxyType(
    {
        "linear": "moments",
        "moment": "mean_square",
        "prev": "step_size",
        "stat": "accum",
        "step_size": "prev",
    }
)
# Also in front of the name of a weight, and what else is then there: nn.AdaFactor, nn.ASGD.
_JOINED: Mapping[str, str] = MappingProxyType(
    {
        "exp_avg_sq_row_": "exp_avg_sq_col_",
        "exp_avg_sq_col_": "exp_avg_sq_row_",
        "exp_avg_sq_": "exp_avg_sq_row_",
        "mu_": "eta_",
        "eta_": "mu_",
    }
)
_COUNTERS = frozenset(
    "afactor_step beta1_power beta2_power current_iterator_step global_step learning_rate"
    " last_overflow_iterator_step loss_scale momentum scale_sense weight_decay".split()
)


def is_optimizer_state(name: str, names: Collection[str]) -> bool:
    """Return whether an entry of a checkpoint is of its optimizer.

    Args:
        names: all entries. ``moments.x`` is state only if ``x`` is among them.
    """
    prefix, _, weight = name.partition(".")
    beside = f"{_BESIDE.get(prefix, prefix)}.{weight}"
    if name in _COUNTERS or (prefix in _PREFIXES and weight in names and beside in names):
        return True
    joined = ((name.removeprefix(start), other) for start, other in _JOINED.items())
    return any(w != name and w in names and other + w in names for w, other in joined)
