"""Instructions of the kernels; see ``__main__.py``."""
