"""What a comparison may take: time, or money."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


class BudgetSpent(Exception):  # noqa: N818 - no error: the end of what was wanted
    """The time or the money is used up; what was measured so far stays."""


@dataclass
class Budget:
    """Seconds and US dollars that may be spent, from when it is made.

    Money is what endpoints take for tokens, and this machine's time at `price_per_hour`.

    Args:
        seconds: None for as many as it takes.
        usd: None for as much as it takes.
        price_per_hour: US dollars that an hour of this machine costs.
        clock: seconds.
    """

    seconds: float | None = None
    usd: float | None = None
    price_per_hour: float = 0.0
    clock: Callable[[], float] = time.monotonic
    paid: float = 0.0
    """US dollars that endpoints took."""
    _began: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def spend(self, usd: float) -> None:
        """An endpoint took so much; several threads may tell."""
        with self._lock:
            self.paid += usd

    @property
    def left_s(self) -> float:
        """Seconds of this machine that may still be spent; infinite where nothing limits them."""
        elapsed = self.clock() - self._began
        left = float("inf") if self.seconds is None else self.seconds - elapsed
        if self.usd is not None and self.price_per_hour:
            spent = self.paid + elapsed * self.price_per_hour / 3600
            left = min(left, (self.usd - spent) * 3600 / self.price_per_hour)
        return left

    @property
    def left_usd(self) -> float:
        """US dollars that may still be spent; infinite where nothing limits them."""
        if self.usd is None:
            return float("inf")
        return self.usd - self.paid - (self.clock() - self._began) * self.price_per_hour / 3600

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.left_s <= 0 or self.left_usd <= 0

    def check(self) -> None:
        """Raises BudgetSpent where nothing is left."""
        if self.spent:
            raise BudgetSpent
