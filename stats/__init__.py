"""Pure functions of arrays. Every test here has an outside witness named in its docstring."""
