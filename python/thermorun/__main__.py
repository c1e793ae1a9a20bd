"""``python -m thermorun`` is ``thermorun``."""

from thermorun.cli import main

main()
