"""The few things that several processes do together. With one process each of them does nothing."""

import atexit
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from actfocus.errors import ActfocusError

T = TypeVar("T")


class Processes:
    """All ranks of a run, through `accelerate`: CPU, one GPU, or several of either."""

    def __init__(self) -> None:
        self._accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        self.device: torch.device = self._accelerator.device
        self.is_main: bool = self._accelerator.is_main_process
        if self.count > 1:
            atexit.register(_leave)

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's share of a list that all ranks hold: every `count`-th item."""
        return list(items[self.rank :: self.count])

    def gather(self, items: list[T]) -> list[T]:
        """The items of all ranks, on all ranks."""
        gathered: list[T] = gather_object(items) if self.count > 1 else items
        return gathered

    @contextmanager
    def together(self) -> Iterator[None]:
        """What happens inside `with` fails on all ranks if it fails on one: they would wait for it forever.

        All ranks take part, and go on when the last one is done.

        Raises:
            ActfocusError: The error of the first rank that has one, of its own type.
        """
        own: ActfocusError | None = None
        try:
            yield
        except ActfocusError as error:
            own = error
        # Type and message alone: an error may carry records, which are no business of the other ranks.
        for kind, message in self.gather([] if own is None else [(type(own), str(own))]):
            raise kind(message) from own

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, on all ranks; it takes the place of `tensor`."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def sum_figures(self, figures: dict[str, float]) -> dict[str, float]:
        """The sums over ranks of named figures; a rank may lack some."""
        if self.count == 1:
            return figures
        names = sorted({name for names in self.gather([list(figures)]) for name in names})
        values = torch.tensor([figures.get(n, 0.0) for n in names], dtype=torch.float64, device=self.device)
        return dict(zip(names, self.sum(values).tolist(), strict=True))

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all ranks, in one message.

        Not averaged: each rank divides its part of the loss by the normaliser of the whole mini-batch.
        """
        if self.count == 1:
            return
        parameters = list(parameters)
        # A rank whose share was empty has no gradients, but still takes part.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        start = 0
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = flat[start : start + gradient.numel()].view_as(gradient)
            start += gradient.numel()

    def wait(self) -> None:
        """Wait until every rank is here."""
        self._accelerator.wait_for_everyone()


def _leave() -> None:
    """End the threads of the group: one that asks for Python while Python ends aborts the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
