"""Pruning methods, one a file, and their registry by name."""

from divprune.methods.base import ItemContext, Method, Paper, Stage
from divprune.methods.divprune import DivPrune
from divprune.methods.fastv import FastV
from divprune.methods.pyramid_drop import PyramidDrop
from divprune.methods.random_tokens import RandomTokens
from divprune.methods.registry import MethodInfo, available_methods, get_method
from divprune.methods.uniform_grid import UniformGrid
from divprune.methods.vtw import VTW

__all__ = [
    "VTW",
    "DivPrune",
    "FastV",
    "ItemContext",
    "Method",
    "MethodInfo",
    "Paper",
    "PyramidDrop",
    "RandomTokens",
    "Stage",
    "UniformGrid",
    "available_methods",
    "get_method",
]
