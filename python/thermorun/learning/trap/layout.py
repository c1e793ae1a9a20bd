"""Where a file keeps the numbers of each protocol."""

import numpy as np

from thermorun.estimates import Estimate
from thermorun.learning.trap.plan import Plan
from thermorun.learning.trap.protocols import Protocol
from thermorun.learning.trap.recorder import SERIES
from thermorun.learning.trap.result import Exact, ProtocolResult
from thermorun.learning.trap.spec import ExcessWork
from thermorun.learning.trap.timestep import StepCheck
from thermorun.store import Axis, RunFile, Variable

SNAPSHOT_PARTICLES = 2**18
_SUMMARY = {
    "excess_work": ("energy", "mean excess work at tau"),
    "excess_work_stderr": ("energy", "its standard error"),
    "excess_work_exact": ("energy", "the exact value, of so many particles and such data; NaN where not known"),
    "theta_final": ("length", "mean over replicas of theta at tau"),
    "u_final": ("length", "mean over replicas of u at tau"),
    "first_law_residual": ("energy", "largest |energy_change - work - heat| at any recorded time"),
    "particle_steps_per_second": ("1/s", "particles times steps over the time spent in kernels"),
}
_EXACT = {
    "exact_u": ("length", "u, moment equations"),
    "exact_theta": ("length", "theta, moment equations"),
    "exact_work": ("energy", "mean excess work of so many particles and such data; NaN where not known"),
    "limit_work": ("energy", "excess work with infinitely many particles and samples, moment equations"),
    "exact_work_stderr": ("energy", "standard error of the mean work that the exact Gaussian distribution predicts"),
}
_TIME_STEP = {
    "scheme_bias": ("energy", "mean work of the scheme itself with infinitely many particles, minus limit_work"),
}


def lay_out(file: RunFile, spec: ExcessWork, plans: list[Plan], kept: int) -> None:
    """Makes every section of a new file and publishes it; so many replicas are ``kept`` from a smaller run."""
    file.note(kept_replicas=kept)
    labels = Axis("protocol", np.array(list(spec.built())), "1", "protocol")
    own = _SUMMARY | (_TIME_STEP if spec.check_dt else {})
    file.add_section("/", [labels], [Variable(name, ("protocol",), *about) for name, about in own.items()])
    rows: dict[str, int] = {}
    for plan in plans:
        _lay_out_protocol(file, plan)
        rows |= sections(plan)
    if spec.check_dt:
        for index, plan in enumerate(plans[: len(plans) // 2]):
            _, _, work = plan.scheme.mean_field(plan.trap, plan.u0)
            file.write_entry("/", index, {"scheme_bias": float(work[-1] - plan.exact.work[-1])})
    file.publish(rows)


def sections(plan: Plan) -> dict[str, int]:
    """A plan's sections and the rows that complete them."""
    rows = {plan.section: len(plan.time)}
    if plan.spec.snapshots:
        rows[f"{plan.section}/snapshots"] = len(plan.snapshot_points)
    if plan.spec.keep_work:
        rows[f"{plan.section}/particles"] = plan.spec.replicas
    return rows


def _lay_out_protocol(file: RunFile, plan: Plan) -> None:
    spec = plan.spec
    time = Axis("time", plan.time, "time", "time; twice where theta jumps: before and after")
    replica = Axis("replica", np.arange(spec.replicas), "1", "independent runs")
    measured = [Variable(name, ("time", "replica"), *about) for name, about in SERIES.items()]
    file.add_section(
        plan.section, [time, replica], measured + [Variable(name, ("time",), *about) for name, about in _EXACT.items()]
    )
    moments = plan.exact
    stderr = moments.stderr(spec.particles, spec.replicas)
    values = (moments.u + plan.origin, moments.theta + plan.origin, plan.exact_work, moments.work, stderr)
    file.write_whole(plan.section, dict(zip(_EXACT, values, strict=True)))
    if spec.snapshots:
        when = Axis("snapshot_time", plan.scheme.times[plan.snapshot_points], "time", "time of the snapshot")
        edges = plan.snapshot_edges
        where = Axis("x", 0.5 * (edges[1:] + edges[:-1]) + plan.origin, "length", "centre of the bin")
        about = ("1/length", f"density of x, from the first {SNAPSHOT_PARTICLES} particles of replica 0")
        file.add_section(
            f"{plan.section}/snapshots", [when, where], [Variable("density", ("snapshot_time", "x"), *about)]
        )
    if spec.keep_work:
        particle = Axis("particle", np.arange(spec.particles), "1", "particle")
        each = [
            Variable(name, ("replica", "particle"), "energy", f"{name} of each particle over the whole run")
            for name in ("work", "heat")
        ]
        file.add_section(f"{plan.section}/particles", [replica, particle], each)


def write_speed(file: RunFile, plan: Plan, rate: float) -> None:
    """Writes a protocol's speed into the table at the root, in particle-steps a second."""
    if plan.section == plan.label:
        place = list(plan.spec.built()).index(plan.label)
        file.write_entry("/", place, {"particle_steps_per_second": rate})


def summarise(file: RunFile, plan: Plan) -> None:
    """Writes a protocol's entry in the table at the root, but for its speed."""
    if plan.section != plan.label:
        return
    result = read(file, plan.spec, plan.label, plan.spec.built()[plan.label])
    values = {
        "excess_work": result.excess_work.mean,
        "excess_work_stderr": result.excess_work.stderr,
        "excess_work_exact": float(result.exact.work[-1]),
        "theta_final": result.estimate("theta").mean,
        "u_final": result.estimate("u").mean,
        "first_law_residual": result.first_law_residual,
    }
    file.write_entry("/", list(plan.spec.built()).index(plan.label), values)


def read(file: RunFile, spec: ExcessWork, label: str, protocol: Protocol, section: str | None = None) -> ProtocolResult:
    """What a file holds of a protocol, complete or not."""
    place = section or label
    rows, stored, table = file.committed(place), file.read(place), file.read("/")
    snapshots = file.read(f"{place}/snapshots") if spec.snapshots else {}
    particles = file.read(f"{place}/particles") if spec.keep_work else {}
    names = ("exact_u", "exact_theta", "exact_work", "limit_work", "exact_work_stderr")
    empty = np.empty(0)
    return ProtocolResult(
        label=label, protocol=protocol, spec=spec, complete=rows == len(stored["time"]), time=stored["time"][:rows],
        series={name: stored[name][:rows] for name in SERIES}, exact=Exact(*(stored[name][:rows] for name in names)),
        particle_steps_per_second=float(table["particle_steps_per_second"][list(spec.built()).index(label)]),
        density_time=snapshots.get("snapshot_time", empty), density_x=snapshots.get("x", empty),
        density=snapshots.get("density", empty), particle_work=particles.get("work"),
        particle_heat=particles.get("heat"),
    )  # fmt: skip


def read_time_steps(file: RunFile, spec: ExcessWork) -> tuple[StepCheck, ...]:
    """Each protocol against its run with half the time step, of those that are complete."""
    if not spec.check_dt:
        return ()
    plain, checks = spec.replace(snapshots=0, keep_work=False), []
    for (label, protocol), bias in zip(spec.built().items(), file.read("/")["scheme_bias"], strict=True):
        ours, halved = (read(file, plain, label, protocol, section) for section in (label, f"half-step/{label}"))
        if ours.complete and halved.complete:
            coarse, fine = ours.excess_work, halved.excess_work
            difference = Estimate(
                coarse.mean - fine.mean, float(np.hypot(coarse.stderr, fine.stderr)), dof=coarse.dof + fine.dof
            )
            checks.append(StepCheck(label, difference, float(bias), float(bias) / coarse.stderr))
    return tuple(checks)
