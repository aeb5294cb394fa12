"""Name the operators that MindSpore 2.10 itself has rules for.

The strategy of any other operator is ignored there: it runs in data parallel if dimension 0 of
its first input and of its result can be split over all devices, and whole otherwise.
"""

HAS_RULE = frozenset(
    """
    ACos Abs Acosh Add AddExt AddN AddcmulExt ApplyRotaryPosEmb ApproximateEqual Arange
    ArgMaxWithValue ArgMinWithValue Argmax Argmin Asin Asinh Assign AssignAdd AssignSub Atan
    Atan2 Atanh AvgPool AvgPool3D BatchMatMul BatchMatMulExt BatchNorm BesselI0 BesselI0e
    BesselI1 BesselI1e BesselJ0 BesselJ1 Betainc BiasAdd BitwiseAnd BitwiseOr BitwiseXor
    BoundingBoxEncode BroadcastTo Cast Cdist Ceil CheckValid Cholesky ClampScalar Concat
    Conv2D Conv2DBackpropInput Conv2DTranspose Conv3D Cos Cosh CropAndResize CrossEntropyLoss
    CumProd CumSum Cummax Cummin CumsumExt DCT DCTN DSDMatmul Dequant Div DivMod DivNoNan
    Dropout DropoutDoMask DropoutExt DynamicQuantExt Elu EluExt Embedding EmbeddingLookup
    Equal Erf Erfc Erfinv Exp ExpandDims Expm1 FFN FFNExt FFT FFT2 FFTN FFTShift
    FakeQuantPerChannel FakeQuantPerLayer FastGeLU FillV2 FlashAttentionScore Floor FloorDiv
    FloorMod FmodScalar FmodTensor FusedInferAttentionScore Gamma Gather GatherD GatherNd Gcd
    GeLU GenerateEodMaskV2 Greater GreaterEqual GridSampler2D GroupNorm GroupedMatmul HFFT
    HFFT2 HFFTN HShrink HSigmoid Hypot IDCT IDCTN IFFT IFFT2 IFFTN IFFTShift IHFFT IHFFT2
    IHFFTN IOU IRFFT IRFFT2 IRFFTN Igamma Igammac IncreFlashAttention IndexAddExt IndexSelect
    InplaceAdd InplaceAddExt InplaceAddsExt InplaceCopy InplaceDiv InplaceDivs
    InplaceFloorDivide InplaceFloorDivides InplaceMul InplaceMuls InplaceSub InplaceSubExt
    InplaceSubScalar InplaceUpdate Inv Invert IsClose IsFinite KLDivLoss KVCacheMgr
    KVCacheScatterUpdate L2Loss L2Normalize LayerNorm LayerNormV3 LeakyReLUExt LeftShift Lerp
    Less LessEqual Lgamma LinSpace LinSpaceExt Log Log1p LogSoftmax LogicalAnd LogicalNot
    LogicalOr LstsqV2 MaskedFill MatMul MatMulExt MatmulDDS Max MaxDim MaxPool MaxPool3D
    Maximum MeanExt MinMaxUpdatePerChannel MinMaxUpdatePerLayer Minimum Mish Mod
    MoeComputeExpertTokens MoeFinalizeRouting MoeGatingTopKSoftmax MoeInitRouting Mul MulNoNan
    Muls NanToNum Neg NextAfter NotEqual OneHot OneHotExt OnesLike Outer PReLU PadV3
    PagedAttention PagedAttentionMask Polar PopulationCount Pow PromptFlashAttention
    QuantBatchMatmul QuantLinearSparse QuantV2 RFFT RFFT2 RFFTN ROIAlign RandomChoiceWithMask
    Range ReLU ReLU6 RealDiv Reciprocal ReduceAll ReduceAny ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum RemainderScalarTensor RemainderTensorScalar RemainderTensorTensor
    RepeatElements RepeatInterleave RepeatInterleaveInt RepeatInterleaveTensor Reshape
    ReshapeAndCache ResizeBilinearV2 ResizeNearestNeighbor ReverseV2 RightShift Rint RmsNorm
    RotaryPositionEmbedding Round Rsqrt ScatterAdd ScatterDiv ScatterMax ScatterMin ScatterMul
    ScatterNdAdd ScatterNdSub ScatterNdUpdate ScatterSub ScatterUpdate SeLU Select SiLU
    Sigmoid SigmoidCrossEntropyWithLogits Sign Sin Sinh Slice SliceExt SoftShrink Softmax
    SoftmaxCrossEntropyWithLogits Softplus SoftplusExt Softsign SolveTriangular Sort SortExt
    SparseGatherV2 SparseSoftmaxCrossEntropyWithLogits Split SplitTensor SplitV SplitWithSize
    Sqrt Square SquareSumAll SquaredDifference Squeeze Stack StackExt StridedSlice Sub SubExt
    SumExt Swiglu Tan Tanh TensorDot TensorScatterAdd TensorScatterDiv TensorScatterMax
    TensorScatterMin TensorScatterMul TensorScatterSub TensorScatterUpdate Tile TopK
    TopKRouter TopPRouter TopkExt TraceV2 Transpose Tril Triu Trunc TruncateDiv TruncateMod
    UniformCandidateSampler Unique UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd
    UnsortedSegmentSum WKV WeightQuantBatchMatmul Xdivy Xlogy ZerosLike Zeta
    """.split()
)

# The operators that follow Layout objects; for the others MindSpore takes numbers only.
TAKES_LAYOUT = frozenset(
    """
    Abs ACos Acosh Add AddExt Asin Asinh Atan Atan2 Atanh BatchMatMul BatchMatMulExt BiasAdd
    BitwiseAnd BitwiseOr BitwiseXor Ceil Cos Cosh CumSum CumsumExt Div DivNoNan Elu Equal Erf
    Erfc Exp ExpandDims Expm1 FastGeLU Floor FloorDiv FloorMod GeLU Greater GreaterEqual HSigmoid
    Inv IsFinite LayerNorm LeakyReLUExt Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot
    LogicalOr MatMul MatMulExt Maximum Minimum Mish Mod Mul MulNoNan Neg NotEqual Pow ReLU ReLU6
    RealDiv Reciprocal Rint RmsNorm Round Rsqrt SeLU SiLU Sigmoid Sign Sin Sinh SoftShrink Softmax
    Softplus Softsign Split Sqrt Square SquaredDifference Squeeze Sub SubExt SumExt Swiglu Tan Tanh
    Tile Transpose Trunc TruncateDiv TruncateMod Xdivy Xlogy ZerosLike OnesLike
    """.split()
)
