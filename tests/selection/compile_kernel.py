"""Compile the selection kernel for a GPU that need not be there: `python -m tests.selection.compile_kernel 90`."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from divprune.selection.fused import MOST_TOKENS, compile_options
from divprune.selection.fused_kernel import max_min_kernel, row_rule_kernel

INTEGERS = {"valid": "*i8", "counts": "*i32", "arrived": "*i32", "picks": "*i64"}
OPTIONAL = ("inverse_lengths", "valid", "counts", "min_distance")
SIZES = ("total", "width", "num_keep")


def compiled(capability: int, dtype: str, total: int, with_optional: bool) -> None:
    options = compile_options(total)
    constants = {"ZERO_BELOW": 1e-6} | {name: options.pop(name) for name in ("ROWS", "BLOCK", "WIDTH_BLOCK")}
    constants |= {} if with_optional else dict.fromkeys(OPTIONAL)
    signature = {name: INTEGERS.get(name, f"*{dtype}") for name in max_min_kernel.arg_names}
    signature |= dict.fromkeys(SIZES, "i32") | dict.fromkeys(constants, "constexpr")
    source = ASTSource(max_min_kernel, signature, constexprs=constants)
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert "max_min_kernel" in kernel.asm["ptx"]
    assert kernel.asm["cubin"]


def compiled_rule(capability: int, dtype: str, kind: str, has_first: bool) -> None:
    options = compile_options(576)
    constants = {"KIND": kind, "BLOCK": options["BLOCK"]} | ({} if has_first else {"first": None})
    signature = dict.fromkeys(row_rule_kernel.arg_names, f"*{dtype}") | {"first": "*i64", "picks": "*i64"}
    signature |= {"total": "i32", "num_keep": "i32"} | dict.fromkeys(constants, "constexpr")
    launched = {name: options[name] for name in ("num_warps", "enable_fp_fusion")}
    source = ASTSource(row_rule_kernel, signature, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launched).asm["cubin"]


if __name__ == "__main__":
    for each in ("fp32", "fp64"):
        for total in (17, 576, MOST_TOKENS):
            compiled(int(sys.argv[1]), each, total, True)
        compiled(int(sys.argv[1]), each, 576, False)
        for kind in ("largest", "smallest", "suppress"):
            compiled_rule(int(sys.argv[1]), each, kind, has_first=kind == "largest")
