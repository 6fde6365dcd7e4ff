"""The derivative rules, by kind: which file holds which function is told in `docs/automatic_differentiation.md`."""
