"""Pruning methods, one a file, and their registry by name."""

from divprune.methods.agile_pruner import AgilePruner
from divprune.methods.base import Count, ItemContext, Method, Need, Paper, Stage
from divprune.methods.cdpruner import CDPruner
from divprune.methods.dart import DART
from divprune.methods.divprune import DivPrune
from divprune.methods.divprune_star import DivPruneStar
from divprune.methods.eadp import EADP
from divprune.methods.evs import EVS
from divprune.methods.fastv import FastV
from divprune.methods.fitprune import FitPrune
from divprune.methods.fitprune_recipe import FitPruneRecipe
from divprune.methods.id_selection import IDSelection
from divprune.methods.image_downsampling import ImageDownsampling, downsampled
from divprune.methods.m3_pooling import M3Pooling
from divprune.methods.merging import Merged, MergingMethod
from divprune.methods.min_max import MinMax
from divprune.methods.mmr import MMR
from divprune.methods.mmtok import MMTok
from divprune.methods.otprune import OTPrune
from divprune.methods.prumerge import PruMerge, PruMergePlus
from divprune.methods.pyramid_drop import PyramidDrop
from divprune.methods.random_tokens import RandomTokens
from divprune.methods.registry import MethodInfo, available_methods, get_method, method_title
from divprune.methods.scope import SCOPE
from divprune.methods.sparse_vlm import SparseVLM
from divprune.methods.spatial_pooling import SpatialPooling
from divprune.methods.token_norm import TokenNorm
from divprune.methods.tome import ToMe
from divprune.methods.tops import TOPS
from divprune.methods.uniform_grid import UniformGrid
from divprune.methods.visionzip import VisionZip
from divprune.methods.vispruner import VisPruner
from divprune.methods.vtw import VTW

__all__ = [
    "DART",
    "EADP",
    "EVS",
    "MMR",
    "SCOPE",
    "TOPS",
    "VTW",
    "AgilePruner",
    "CDPruner",
    "Count",
    "DivPrune",
    "DivPruneStar",
    "FastV",
    "FitPrune",
    "FitPruneRecipe",
    "IDSelection",
    "ImageDownsampling",
    "ItemContext",
    "M3Pooling",
    "MMTok",
    "Merged",
    "MergingMethod",
    "Method",
    "MethodInfo",
    "MinMax",
    "Need",
    "OTPrune",
    "Paper",
    "PruMerge",
    "PruMergePlus",
    "PyramidDrop",
    "RandomTokens",
    "SparseVLM",
    "SpatialPooling",
    "Stage",
    "ToMe",
    "TokenNorm",
    "UniformGrid",
    "VisPruner",
    "VisionZip",
    "available_methods",
    "downsampled",
    "get_method",
    "method_title",
]
