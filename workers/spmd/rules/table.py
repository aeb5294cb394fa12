"""The table of operators: which family labels which operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Optional

from workers.spmd.graph import Node
from workers.spmd.rules import attention, lookups, pointwise, products, reductions, shapes
from workers.spmd.signature import Signature

Rule = Callable[[Node], Optional[Signature]]  # None: no rule for these shapes

_ELEMENT_WISE = """
    Abs ACos Acosh Add AddExt AddN Addcdiv Addcmul AddcmulExt Adds And ApproximateEqual Asin Asinh
    Assign AssignAdd AssignSub Atan Atan2 Atanh BesselI0 BesselI0e BesselI1 BesselI1e BitwiseAnd
    BitwiseOr BitwiseXor Ceil ClampScalar ClampTensor Clip Cos Cosh Div DivMod DivNoNan Divs Elu
    EluExt Equal Erf Erfc Erfinv Exp Expm1 FastGeLU Floor FloorDiv FloorMod GeLU GeluExt Greater
    GreaterEqual HShrink HSigmoid HSwish Hypot Inv InvGrad IsClose IsFinite IsInf IsNan LeakyReLU
    LeakyReLUExt LeftShift Lerp Less LessEqual Lgamma Log Log1p LogicalAnd LogicalNot LogicalOr
    LogicalXor MaskedFill Maximum Minimum Mish MishExt Mod Mul MulNoNan Muls NanToNum Neg
    NextAfter NotEqual OnesLike OnesLikeExt Polar Pow PowScalarTensor PowTensorScalar RealDiv
    Reciprocal ReLU ReLU6 RemainderScalarTensor RemainderTensorScalar RemainderTensorTensor
    RightShift Rint Round Rsqrt SeLU SeLUExt Select Sigmoid Sign SiLU Sin Sinh SoftShrink Softplus
    SoftplusExt Softsign Sqrt Square SquaredDifference Sub SubExt Subs Tan Tanh Trunc TruncateDiv
    TruncateMod Xdivy Xlogy ZerosLike ZerosLikeExt
"""


def _each(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: Mapping[str, Rule] = {
    **_each(_ELEMENT_WISE, pointwise.element_wise),
    **_each("Softmax LogSoftmax LogSoftmaxExt Sort L2Normalize ReverseV2", pointwise.along_axis),
    **_each("CumSum CumsumExt CumProd Cummax Cummin", pointwise.cumulative),
    **_each("TopK", pointwise.top_k),
    **_each("Tril Triu TrilExt", pointwise.triangle),
    **_each("Swiglu", pointwise.swiglu),
    **_each("RotaryPositionEmbedding", pointwise.rotary),
    **_each("PReLU", pointwise.by_channel),
    **_each("LayerNorm", pointwise.layer_norm),
    **_each("LayerNormExt", pointwise.layer_norm_ext),
    **_each("RmsNorm", pointwise.rms_norm),
    **_each("BatchNorm", pointwise.batch_norm),
    **_each("MatMul BatchMatMul MatMulExt BatchMatMulExt", products.mat_mul),
    **_each("Dense", products.dense),
    **_each("BiasAdd", products.bias_add),
    **_each("Conv2D", products.conv2d),
    **_each("MaxPool AvgPool", products.pooling),
    **_each("ReduceSum SumExt", reductions.reduction("sum")),
    **_each("ReduceMean MeanExt", reductions.reduction("mean")),
    **_each("ReduceMax Max ReduceAny", reductions.reduction("max")),
    **_each("ReduceMin Min ReduceAll", reductions.reduction("min")),
    **_each("ReduceProd ReduceStd ProdExt", reductions.reduction("gathered")),
    **_each("Argmax Argmin ArgMaxExt ArgMinExt", reductions.position),
    **_each("ArgMaxWithValue ArgMinWithValue", reductions.position_and_value),
    **_each("Gather", lookups.gather),
    **_each("Embedding", lookups.embedding),
    **_each("GatherNd", lookups.gather_nd),
    **_each("GatherD", lookups.gather_d),
    **_each("Transpose TransposeView", shapes.transpose),
    **_each("ExpandDims ExpandDimsView Squeeze Unsqueeze", shapes.reshaped),
    **_each("Flatten", shapes.flattened),
    **_each("Concat", shapes.concat),
    **_each("Stack StackExt", shapes.stack),
    **_each("Unstack", shapes.unstack),
    **_each("Split", shapes.split(1)),
    **_each(
        "SplitTensor SplitWithSize SplitTensorView SplitWithSizeView ChunkView", shapes.split(2)
    ),
    **_each("StridedSlice", shapes.strided_slice),
    **_each("Slice", shapes.slice_),
    **_each("SliceExt SliceExtView NarrowView", shapes.slice_ext),
    **_each("Tile", shapes.tile),
    **_each("BroadcastTo BroadcastToView", shapes.broadcast_to),
    **_each("OneHot OneHotExt", shapes.one_hot),
    **_each("FlashAttentionScore", attention.flash_attention),
    **_each("PromptFlashAttention", attention.prompt_attention),
}
