"""hubgate: a gateway between applications and the open models of Hugging Face."""

__version__ = "0.1.0"
