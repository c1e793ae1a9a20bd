"""Likelihoods of models of many hidden bits: against enumeration, and against a restricted Boltzmann machine.

    python bench/bench_bits.py --enumeration
    python bench/bench_bits.py --machine [--seconds 40]
    python bench/bench_bits.py --mixing

The first trains tied models of 16, 18 and 20 bits, and puts the estimate from five seeds beside log Z from all 2^L
states.  The second trains 64 bits, tied and free, and the machine of the package rbms (in the extra peers), for as many
CPU seconds of one thread each, and puts their likelihoods side by side: by the estimate, and by that package's annealed
importance sampling where weights are tied.  The third asks whether free weights mix better than tied ones that are as
likely.  All need MNIST.
"""

import argparse
import time
from types import SimpleNamespace

import numpy as np

from thermorun import cycles, datasets
from thermorun.cycles import layout, training
from thermorun.cycles.likelihood import CHAINS, Effort, bits_of, log_likelihoods
from thermorun.cycles.long_chains import effective_samples, spread_out
from thermorun.cycles.model import Model, parameter_count
from thermorun.store import RunFile
from thermorun.threads import on_threads

SETTINGS = {
    "dataset": "mnist", "encoding": "bits", "models": 1, "steps_per_epoch": 100, "chain_steps": 192, "minibatch": 160,
    "learning_rate": 0.01, "final_rate": 1e-4, "decay": 0.99, "threads": 1, "samples": 8, "keep_every": 10**6,
}  # fmt: skip


def log_factor(model):
    """log Z of a tied model from all 2^L states."""
    w, a = model.w.astype(float), model.a.astype(float)
    shift = model.abar.astype(float) - w @ model.mean.astype(float)
    parts = []
    for states in np.array_split(np.arange(2**model.hidden, dtype=np.uint64), max(1, 2 ** (model.hidden - 12))):
        on = bits_of(states, model.hidden).astype(float)
        parts.append(np.logaddexp.reduce(on @ shift + np.logaddexp(0.0, on @ w + a).sum(axis=1)))
    return np.logaddexp.reduce(parts)


def unnormalised(model, x):
    """Mean of log Z p(x) of a tied model."""
    w, a = model.w.astype(float), model.a.astype(float)
    shift = model.abar.astype(float) - w @ model.mean.astype(float)
    each = [np.logaddexp(0.0, part @ w.T + shift).sum(axis=1) + part @ a for part in np.array_split(x, 20)]
    return np.concatenate(each).mean()


def enumeration():
    """Estimate less truth of tied models on MNIST, five seeds."""
    print("bits   exact / nat   estimate less exact, five seeds / nat                    error  gain  CPU s")
    for hidden in (16, 18, 20):
        result = cycles.train(hidden=hidden, tied=True, epochs=30, **SETTINGS)
        model, x = result.model(0), result.data.x
        truth = unnormalised(model, x) - log_factor(model)
        began = time.process_time()
        with on_threads(1):
            found = [
                log_likelihoods(model, [x], spread_out(x, CHAINS), Effort.of(64_000), seed)[0] for seed in range(5)
            ]
        seconds = (time.process_time() - began) / 5
        print(
            f"{hidden:4d} {truth:12.3f}   " + "  ".join(f"{one.mean - truth:+.4f}" for one in found),
            f"      {np.mean([one.stderr for one in found]):.3f} {np.mean([one.gain for one in found]):+.3f}"
            f" {seconds:.1f}", flush=True,
        )  # fmt: skip


def ours(seconds, **settings):
    """A model trained for about so many CPU seconds, those that it took, and its gradient steps."""
    cycles.train(**SETTINGS | settings | {"epochs": 1, "steps_per_epoch": 2, "samples": 1})  # compile

    def trained(epochs):
        study = cycles.CycleStudy(
            epochs=epochs, hidden=64, **{k: v for k, v in (SETTINGS | settings).items() if k != "threads"}
        )
        data = study.data()
        with on_threads(1), RunFile.in_memory(study.command, study.to_json(), 0, 1) as file:
            study = study.on(data)
            layout.lay_out(file, study, data)
            under_way = training.Study(study, data, file)
            began = time.process_time()
            for epoch in range(epochs):
                under_way.epoch(epoch)
            return under_way, time.process_time() - began

    _, each = trained(3)
    under_way, taken = trained(round(3 * seconds / each))
    model = Model("bits", 64, under_way.theta[0], under_way.mean, under_way.spec.tied)
    return model, taken, under_way.spec.steps


def theirs(seconds, x, chains=500, gibbs_steps=1, rate=0.1, batch=500, falling=False):
    """A machine of the package rbms, as its own training does it, the CPU seconds it took, and its steps."""
    import torch
    from rbms.bernoulli_bernoulli.classes import BBRBM
    from rbms.training.pcd import fit_batch_pcd

    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = torch.from_numpy(x.astype(np.float32))
    weights = torch.ones(len(data))
    machine = BBRBM.init_parameters(64, SimpleNamespace(data=data), data.device, data.dtype)
    for parameter in machine.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser = torch.optim.SGD(machine.parameters(), lr=rate, maximize=True)
    walkers = machine.init_chains(chains)
    began, steps = time.process_time(), 0
    with torch.no_grad():
        while (taken := time.process_time() - began) < seconds:
            if falling:
                optimiser.param_groups[0]["lr"] = rate * 0.01 ** (taken / seconds)
            chosen = torch.randint(len(data), (batch,))
            optimiser.zero_grad(set_to_none=False)
            walkers, _ = fit_batch_pcd((data[chosen], weights[chosen]), walkers, machine, gibbs_steps, 1.0)
            optimiser.step()
            steps += 1
    row = np.zeros(parameter_count(64, x.shape[1]), np.float32)
    mean = x.mean(axis=0).astype(np.float32)
    model = Model("bits", 64, row, mean, True)
    model.w[:] = model.wbar[:] = machine.weight_matrix.numpy().T
    model.a[:] = machine.vbias.numpy()
    model.abar[:] = machine.hbias.numpy() + model.w @ mean
    return model, taken, steps


def annealed(model, seed):
    """log Z of a tied model by the annealed importance sampling of the package rbms."""
    import torch
    from rbms.bernoulli_bernoulli.classes import BBRBM
    from rbms.partition_function.ais import compute_partition_function_ais

    torch.manual_seed(seed)
    shift = model.abar - model.w @ model.mean
    parts = (np.ascontiguousarray(model.w.T), model.a.copy(), shift.copy())
    with torch.no_grad():
        machine = BBRBM(*(torch.from_numpy(part) for part in parts))
        return compute_partition_function_ais(300, 1500, machine)


def machine(seconds, samples):
    """The table of models of 64 bits."""
    data = datasets.load("mnist")
    sets = [data.x, data.test_x]
    kinds = {
        "tied, two-step rule": lambda: ours(seconds, tied=True),
        "free, two-step rule": lambda: ours(seconds),
        "rbms, 1 Gibbs step, rate 0.1": lambda: theirs(seconds, data.x),
        "rbms, the same, rate falling": lambda: theirs(seconds, data.x, falling=True),
    }
    print(f"{seconds} CPU seconds; log-likelihoods in nat; gain: of the last doubling of {samples:,} fantasies")
    for name, train in kinds.items():
        model, taken, steps = train()
        with on_threads(1):
            found = log_likelihoods(model, sets, spread_out(data.x, CHAINS), Effort.of(samples), 0)
        line = f"{name:32s} {taken:5.1f} s {steps:6d} steps"
        for one in found:
            line += f"  {one.mean:.2f} ± {one.stderr:.2f} (gain {one.gain:+.2f}, {one.fantasies:.0f} fantasies)"
        if model.tied:
            factor = annealed(model, 0)
            line += "  AIS:" + "".join(f"  {unnormalised(model, x) - factor:.2f}" for x in sets)
        print(line, flush=True)


def mixing(hidden, epochs):
    """Tied and free weights that are equally likely held out, and the likelier kind at the end of as many steps too."""
    settings = SETTINGS | {"hidden": hidden, "epochs": epochs, "keep_every": 1}
    studies = [cycles.train(tied=tied, **settings) for tied in (True, False)]
    level, data = min(study["held_out_log_likelihood"].mean[0] for study in studies), studies[0].data
    rows = []
    for study in studies:
        known, values = study.curve("held_out_log_likelihood", 0)
        equal = int(known[np.argmin(np.abs(values - level))])
        rows += [(study, epoch) for epoch in sorted({equal, epochs})]
    sets = [data.x, data.test_x]
    for study, epoch in rows:
        spec, row = study.spec, study.kept_parameters()[epoch - 1, 0]
        model, name = spec.model(row, study.mean), f"{'tied' if spec.tied else 'free'}, epoch {epoch}"
        with on_threads(1):
            found = log_likelihoods(model, sets, spread_out(data.x, CHAINS), Effort.of(64_000), 0)
            sigma = cycles.path_entropy_production(model, data.x, 0, 256)
            worth = effective_samples(row, spec, study.mean, data.x, 0, 8192)
            memory = cycles.autocorrelation(row, spec, study.mean, data.x, 0, 100)
        line = f"{name:16s}" + "".join(f"  {one.mean:.2f} ± {one.stderr:.2f} ({one.gain:+.2f})" for one in found)
        print(f"{line}  sigma {sigma}  images a step {worth}  C(1, 10, 100) {memory[1]} {memory[10]} {memory[100]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--enumeration", action="store_true", help="16 to 20 bits against all of their states")
    parser.add_argument("--machine", action="store_true", help="64 bits beside the package rbms")
    parser.add_argument("--mixing", action="store_true", help="tied beside free weights that are equally likely")
    parser.add_argument("--hidden", type=int, default=16, help="bits of --mixing")
    parser.add_argument("--epochs", type=int, default=30, help="of 100 steps, of --mixing")
    parser.add_argument("--seconds", type=float, default=40.0, help="of CPU that each is trained")
    parser.add_argument("--samples", type=int, default=256_000, help="fantasies of an estimate")
    given = parser.parse_args()
    if given.enumeration:
        enumeration()
    if given.machine:
        machine(given.seconds, given.samples)
    if given.mixing:
        mixing(given.hidden, given.epochs)
