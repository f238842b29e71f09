"""What the server that training workers are forked from imports beforehand."""

from posterion.training import preload

preload()
