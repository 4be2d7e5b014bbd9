"""Recovery of a training that diverges.

Earlier states are kept in memory. When the loss or the gradient is not a number, or the loss is far above that of a
random guess, the training returns to an earlier state and continues with a smaller learning rate.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from charlm.engine.runs import Run
from charlm.errors import TrainingError
from charlm.training.distributed import Workers
from charlm.training.state import Snapshot, TrainingState

MAX_LOSS_RATIO = 3.0
"""Maximum of the recent training loss, as a multiple of the loss of a uniform guess, which is ln V. A single update may
be above it, because a confident model can be wrong."""

RECENT_WEIGHT = 0.05
"""Weight of the last update in the exponential moving average that is the recent training loss."""

MAX_RECOVERIES = 3
"""Maximum number of returns to an earlier state."""

RECOVERY_RATE = 0.3
"""Factor of the learning rate at each return."""

NUM_SNAPSHOTS = 2
"""Number of earlier states in memory. If the training diverges again after it has returned to the last state, it
returns to the state before that."""


class DivergedError(Exception):
    """The training diverges. The trainer handles this error, so that no caller sees it."""


class DivergenceGuard:
    """Detection of divergence, and the earlier states to return to.

    Args:
        state: State of the training.
        peak_rate: Peak learning rate, for messages.
        run: Folder of the training, for messages.
        warn: Function that shows a message to the user.

    Attributes:
        is_due: Whether a state should be kept before the next update.
    """

    def __init__(self, state: TrainingState, peak_rate: float, run: Run, warn: Callable[[str], None]) -> None:
        self._state = state
        self._peak_rate = peak_rate
        self._run = run
        self._warn = warn
        self._guess_nats = math.log(state.model.config.vocab_size)
        self._snapshots: deque[Snapshot] = deque(maxlen=NUM_SNAPSHOTS)
        self.is_due = False

    def check(self, nats: float, gradient_norm: float) -> float:
        """Check an update before it is made.

        Args:
            nats: Training loss in nats per token.
            gradient_norm: Norm of the gradient.

        Returns:
            The recent training loss, in nats per token.

        Raises:
            DivergedError: If the training diverges.
        """
        recent = (1 - RECENT_WEIGHT) * self._state.counters.recent_nats + RECENT_WEIGHT * nats
        if not (recent <= MAX_LOSS_RATIO * self._guess_nats and math.isfinite(gradient_norm)):
            raise DivergedError(f"loss {nats:.3g} nats per token, gradient norm {gradient_norm:.3g}")
        return recent

    def request_snapshot(self) -> None:
        """Make a snapshot due, unless the recent loss is above that of a uniform guess."""
        self.is_due = self._state.counters.recent_nats <= self._guess_nats

    def keep_snapshot(self) -> None:
        """Keep the current state, and drop the oldest one if there are more than `NUM_SNAPSHOTS`."""
        self._snapshots.append(self._state.snapshot())
        self.is_due = False

    def recover(self, error: DivergedError) -> None:
        """Return to the last kept state with a smaller learning rate, and drop that state unless it is the only one.

        Raises:
            TrainingError: If the training has returned `MAX_RECOVERIES` times already.
        """
        diverged = self._state.counters
        if diverged.recoveries == MAX_RECOVERIES:
            kept = f"; the best model so far is in {self._run.path}" if self._run.model.exists() else ""
            raise TrainingError(
                f"the training diverged at step {diverged.step:,} ({error}), even after {MAX_RECOVERIES} returns to an "
                f"earlier state with a smaller rate; set learning_rate below {self._peak_rate:g}{kept}",
                fields=["learning_rate"],
            )
        earlier = self._snapshots.pop() if len(self._snapshots) > 1 else self._snapshots[0]
        self._state.restore(earlier.tensors, Workers())
        self._state.counters = replace(
            earlier.counters,
            rate_scale=diverged.rate_scale * RECOVERY_RATE,
            recoveries=diverged.recoveries + 1,
            best_nats=diverged.best_nats,
        )
        self._warn(
            f"the training diverged at step {diverged.step:,} ({error}); it continues from step "
            f"{earlier.counters.step:,} with {self._state.counters.rate_scale:.3g} times the learning rate"
        )
