"""A genetic algorithm that retrains one device and sees only its noisy answers."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from thermorun import streams
from thermorun.arrays import Array
from thermorun.computer.experiments.variation import Genome, deviations, spread
from thermorun.computer.machine import Machine
from thermorun.errors import RunError

# Those of a population that stay, and from which all others come.
_PARENTS = 4
# Images that a generation is tested on.
_TESTED = 256


@dataclass
class Search:
    """A search under way.  Generation g is a pure function of the parents that g - 1 left, and of seed and device.

    Each generation the parents and their mutants, p (1 + mutation z), are programmed into the device and classify the
    same training images, one noisy shot each; the ``_PARENTS`` with the most right answers stay.  Parents are tested
    anew every time, so that luck does not last.

    ``inputs`` (points, inputs) and ``labels`` (points,) are the training images; ``normals`` what the device does to
    its parameters, which the search does not know: it sees answers.
    """

    genome: Genome
    inputs: Array
    labels: Array
    normals: Array
    level: float
    mutation: float
    population: int
    seed: int
    device: int
    generation: int = 0
    parents: Array = field(init=False)

    def __post_init__(self) -> None:
        self.parents = np.repeat(self.genome.vector[None], min(_PARENTS, self.population), axis=0)

    @property
    def machine(self) -> Machine:
        """The device with the best parent programmed into it."""
        return self._built(self.parents[0])

    def step(self, pause: Callable[[], None] = lambda: None) -> float:
        """One generation; returns the share of right answers of its best."""
        key = np.random.SeedSequence([self.seed, self.device, self.generation])
        rng = np.random.Generator(np.random.Philox(key))
        points, keep = len(self.labels), len(self.parents)
        shown = np.sort(rng.choice(points, min(_TESTED, points), replace=False))
        inputs, labels = self.inputs[shown], self.labels[shown]
        fathers = rng.integers(keep, size=self.population - keep)
        tested, hits = list(self.parents), np.zeros(self.population)
        for k in range(self.population):
            number = self.generation * self.population + k
            if k >= keep:
                stream = streams.device(self.seed, "mutant", self.device).part(number, 1)
                parent = self.parents[fathers[k - keep]]
                tested.append(spread(parent, None, self.mutation, deviations(len(parent), stream)))
            hits[k] = self._hits(tested[k], inputs, labels, number)
            pause()
        ranked = np.argsort(-hits, kind="stable")[:keep]
        self.parents[...] = np.stack([tested[k] for k in ranked])
        self.generation += 1
        return float(hits[ranked[0]])

    def _built(self, vector: Array) -> Machine:
        return self.genome.build(spread(vector, None, self.level, self.normals))

    def _hits(self, vector: Array, inputs: Array, labels: Array, number: int) -> float:
        """Share of right answers of one shot each; none of a mutant that diverges."""
        machine = self._built(vector)
        stream = streams.device(self.seed, "test", self.device).part(number, 1)
        try:
            run = machine.run(machine.fields(inputs, inputs.dtype), seed=stream)
        except RunError:
            return 0.0
        return float(np.mean(np.argmax(run.x[:, machine.hidden :], axis=1) == labels))
