"""What the time step does to the excess work."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from thermorun.estimates import Estimate
from thermorun.learning.trap.plan import Plan
from thermorun.learning.trap.result import ExcessWorkResult
from thermorun.learning.trap.run import excess_work
from thermorun.learning.trap.spec import ExcessWork


@dataclass(frozen=True)
class StepCheck:
    """One protocol at dt and at dt/2.

    ``difference`` is measured, W(dt) - W(dt/2).  ``bias`` is the mean work of the scheme itself at dt, with infinitely
    many particles, minus the exact value: free of noise.  Energies.
    """

    label: str
    difference: Estimate
    bias: float
    bias_over_stderr: float

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "protocol": self.label,
            "difference": self.difference.to_dict(),
            "bias": self.bias,
            "bias_over_stderr": self.bias_over_stderr,
        }


def halve_step(spec: ExcessWork, threads: int | None = None, show_progress: bool = False) -> ExcessWorkResult:
    """The same run with twice the steps, and with the next seed, for its noise must be its own."""
    finer = replace(spec, steps=2 * spec.step_count, seed=(spec.seed + 1) % 2**64, snapshots=0, keep_work=False)
    return excess_work(finer, threads=threads, show_progress=show_progress)


def compare_steps(result: ExcessWorkResult, halved: ExcessWorkResult) -> list[StepCheck]:
    """Protocol by protocol, a run against the one that ``halve_step`` made of it."""
    checks = []
    for plan in Plan.of(result.spec):
        coarse, fine = result[plan.label].excess_work, halved[plan.label].excess_work
        _, _, work = plan.scheme.mean_field(result.spec.trap, plan.u0)
        bias = float(work[-1] - plan.exact.work[-1])
        difference = Estimate(coarse.mean - fine.mean, float(np.hypot(coarse.stderr, fine.stderr)))
        checks.append(StepCheck(plan.label, difference, bias, bias / coarse.stderr))
    return checks
