"""Name what makes a network impossible to run on simulated ranks."""

from __future__ import annotations

from workers.errors import InputError, WorkerError


class CaptureError(InputError):
    """MindSpore could not compile the network, or compiled something that no rank can run."""


class StrategyError(InputError):
    """MindSpore would refuse the strategy of an operator."""

    def __init__(self, operator: object, reason: str, remedy: str = "") -> None:
        super().__init__(str(operator), reason, remedy)
        self.operator, self.reason, self.remedy = str(operator), reason, remedy

    def __str__(self) -> str:
        return f"{self.operator}: {self.reason}" + (f"; {self.remedy}" if self.remedy else "")


class DatasetStrategyError(InputError):
    """MindSpore would refuse the dataset_strategy for the inputs of this network."""

    def __str__(self) -> str:
        return (
            f"dataset_strategy: {self.args[0]}; give each input one number for each dim, the same"
            " number where it is split and 1 elsewhere, or use full_batch"
        )


class ParameterConflictError(InputError):
    """One parameter, two operators, two layouts: MindSpore refuses the network."""

    def __init__(self, parameter: str, first: str, second: str) -> None:
        super().__init__(parameter, first, second)
        self.parameter, self.first, self.second = parameter, first, second

    def __str__(self) -> str:
        return (
            f"the parameter {self.parameter} has multiple users that divide it differently:"
            f" {self.first}, and {self.second}; give these operators strategies that cut it alike"
        )


class MeetingError(WorkerError):
    """The ranks cannot reach each other."""


class MismatchError(WorkerError):
    """Two ranks met in different collective calls."""

    def __init__(self, rank: int, call: str, peer: int, peer_call: str) -> None:
        super().__init__(rank, call, peer, peer_call)
        self.rank, self.call, self.peer, self.peer_call = rank, call, peer, peer_call

    def __str__(self) -> str:
        return (
            f"rank {self.rank} is in {self.call}, but rank {self.peer} is in {self.peer_call};"
            " do the ranks run the same network on the same input?"
        )
