"""The generative thermodynamic computer: pictures out of noise, with their heat (Whitelam 2026)."""
