"""Pruning methods, one a file, and their registry by name.

To add one, write its file and one import line here: its place is its place in `divprune methods`.
"""

# ruff: noqa: I001

from divprune.methods.base import Count as Count, Fidelity as Fidelity, Method as Method, Stage as Stage  # fmt: skip
from divprune.methods.item_context import ItemContext as ItemContext, Need as Need, given as given
from divprune.methods.fitprune_recipe import FitPruneRecipe as FitPruneRecipe
from divprune.methods.image_downsampling import downsampled as downsampled
from divprune.methods.merging import Merged as Merged, MergingMethod as MergingMethod
from divprune.methods.papers import Paper as Paper, bibliography as bibliography
from divprune.methods.registry import MethodInfo as MethodInfo, available_methods as available_methods  # fmt: skip
from divprune.methods.registry import get_method as get_method, method_title as method_title  # fmt: skip
from divprune.methods.registry import method_info as method_info, method_names as method_names  # fmt: skip

from divprune.methods.divprune import DivPrune as DivPrune
from divprune.methods.divprune_star import DivPruneStar as DivPruneStar
from divprune.methods.random_tokens import RandomTokens as RandomTokens
from divprune.methods.uniform_grid import UniformGrid as UniformGrid
from divprune.methods.token_norm import TokenNorm as TokenNorm
from divprune.methods.min_max import MinMax as MinMax
from divprune.methods.spatial_pooling import SpatialPooling as SpatialPooling
from divprune.methods.image_downsampling import ImageDownsampling as ImageDownsampling
from divprune.methods.m3_pooling import M3Pooling as M3Pooling
from divprune.methods.fastv import FastV as FastV
from divprune.methods.vtw import VTW as VTW
from divprune.methods.pyramid_drop import PyramidDrop as PyramidDrop
from divprune.methods.fitprune import FitPrune as FitPrune
from divprune.methods.sparse_vlm import SparseVLM as SparseVLM
from divprune.methods.dart import DART as DART
from divprune.methods.tome import ToMe as ToMe
from divprune.methods.prumerge import PruMerge as PruMerge
from divprune.methods.prumerge import PruMergePlus as PruMergePlus
from divprune.methods.visionzip import VisionZip as VisionZip
from divprune.methods.vispruner import VisPruner as VisPruner
from divprune.methods.cdpruner import CDPruner as CDPruner
from divprune.methods.scope import SCOPE as SCOPE
from divprune.methods.mmtok import MMTok as MMTok
from divprune.methods.mmr import MMR as MMR
from divprune.methods.id_selection import IDSelection as IDSelection
from divprune.methods.otprune import OTPrune as OTPrune
from divprune.methods.agile_pruner import AgilePruner as AgilePruner
from divprune.methods.eadp import EADP as EADP
from divprune.methods.tops import TOPS as TOPS
from divprune.methods.evs import EVS as EVS
from divprune.methods.cls_attention import CLSAttention as CLSAttention
from divprune.methods.holov import HoloV as HoloV
from divprune.methods.hiprune import HiPrune as HiPrune
from divprune.methods.vscan import VScan as VScan
from divprune.methods.globalcom2 import GlobalCom2 as GlobalCom2
from divprune.methods.pact import PACT as PACT
from divprune.methods.dycoke import DyCoke as DyCoke
from divprune.methods.vidcom2 import VidCom2 as VidCom2
from divprune.methods.prunevid import PruneVid as PruneVid
from divprune.methods.holitom import HoliTom as HoliTom
from divprune.methods.fastvid import FastVID as FastVID
from divprune.methods.flashvid import FlashVID as FlashVID
