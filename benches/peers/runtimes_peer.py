"""OpenVINO's and ONNX Runtime's part in the comparison: a coprocess that this package starts with `--runtimes PYTHON`; `coprocess.py`
has the protocol.

Both are given the same ONNX models, one a layer, whose weights are constants: each packs them as it likes when it loads the
model. OpenVINO computes bf16 and f16 where it says that the processor can, from weights that it has rounded; activations come
and go as f32, whatever it makes of them inside. ONNX Runtime takes part in f32. A GRU has texts in its second dimension, as
both prefer, and its layer is one, and warm. The block that reads and writes half of the features is not among their models.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from coprocess import WEIGHT_SCALE, Call, Coprocess, matrices, own_answers, result_shape, threads

answers = own_answers()

try:
    import numpy as np
    import onnx
    import onnxruntime
    import openvino
except ImportError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
    from environment import provide

    provide("requirements-runtimes.txt")
    import numpy as np
    import onnx
    import onnxruntime
    import openvino

from onnx import helper, numpy_helper

CAPABILITIES = {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}
OPSET = 17
# The format's version that goes with it.
IR_VERSION = 8

random = np.random.default_rng(0)


def draw(*shape: int, scale: float = WEIGHT_SCALE) -> np.ndarray:
    """Normal random numbers."""
    return random.standard_normal(shape, dtype=np.float32) * np.float32(scale)


class Graph:
    """A model of one input, `x`, and one output, `y`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        """Its name."""
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op: str, inputs: list[str], output: str | None = None, **attributes) -> str:
        """Its output's name."""
        output = output or f"node{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def linear(self, x: str, weight: np.ndarray, output: str | None = None) -> str:
        """The product with a weight in the layout of `nn.Linear`."""
        return self.node("MatMul", [x, self.constant(np.ascontiguousarray(weight.T))], output)

    def bytes(self, x: tuple[int, ...], y: tuple[int, ...], is_token: bool) -> bytes:
        """The model, for those shapes."""
        element = onnx.TensorProto.INT64 if is_token else onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "model",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x)],
            [helper.make_tensor_value_info("y", element, y)],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()


def block(op: str, dimensions: dict[str, int]) -> Graph:
    """A SwiGLU block, or a head's best token."""
    graph = Graph()
    weights = [draw(*shape) for shape in matrices(op, dimensions)]
    if op == "exit_head":
        logits = graph.linear("x", weights[0])
        graph.node("ArgMax", [logits], "y", axis=-1, keepdims=0)
        return graph
    gate, up = graph.linear("x", weights[0]), graph.linear("x", weights[1])
    silu = graph.node("Mul", [gate, graph.node("Sigmoid", [gate])])
    graph.linear(graph.node("Mul", [silu, up]), weights[2], "y")
    return graph


def gru(inputs: int, hidden: int) -> Graph:
    """One layer, both directions, the reset gate behind the product as in PyTorch."""
    graph = Graph()
    weights = [draw(2, 3 * hidden, inputs), draw(2, 3 * hidden, hidden), draw(2, 6 * hidden)]
    tensors = ["x", *(graph.constant(weight) for weight in weights)]
    graph.node("GRU", tensors, "y", hidden_size=hidden, direction="bidirectional", linear_before_reset=1)
    return graph


class Case:
    """One operation on one shape, by every contestant that has it."""

    def __init__(self, op: str, dtype: str, dimensions: dict[str, int]):
        self.calls: dict[str, Call] = {}
        if op not in ("gated_mlp", "exit_head", "bigru"):
            return
        rows, hidden = dimensions["rows"], dimensions["hidden"]
        y = result_shape(op, dimensions)
        if op == "bigru":
            texts, inputs = dimensions["texts"], dimensions["input"]
            x, y = draw(rows, texts, inputs, scale=1), (rows, 2, texts, hidden)
        else:
            x = draw(rows, hidden, scale=1)
        takes_openvino = CAPABILITIES[dtype] in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        requests, sessions = [], []
        for _ in range(dimensions["layers"]):
            graph = gru(dimensions["input"], hidden) if op == "bigru" else block(op, dimensions)
            model = graph.bytes(x.shape, y, op == "exit_head")
            if takes_openvino:
                requests.append(openvino_request(model, dtype, x))
            if dtype == "f32":
                sessions.append(onnxruntime_binding(model, x))
        if requests:
            self.calls["openvino"] = lambda layer: requests[layer].infer()
            check("openvino", requests[0].infer()[0], y)
        if sessions:
            self.calls["onnxruntime"] = lambda layer: run_binding(*sessions[layer])
            check("onnxruntime", run_binding(*sessions[0]), y)

    def wake(self) -> None:
        """Neither has a way to; their threads look for work for a while by themselves."""


def check(name: str, result: np.ndarray, shape: tuple[int, ...]) -> None:
    """Its shape, and that it gives numbers."""
    if result.shape != tuple(shape) or not np.isfinite(result).all():
        raise ValueError(f"{name}: {result.shape}, expected finite {shape}")


def openvino_request(model: bytes, dtype: str, x: np.ndarray) -> openvino.InferRequest:
    """Ready to run."""
    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": dtype,
        "INFERENCE_NUM_THREADS": threads(),
        "NUM_STREAMS": 1,
    }
    request = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x))
    return request


def onnxruntime_binding(model: bytes, x: np.ndarray) -> tuple:
    """A session and what it reads and writes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    # Its threads look for work in a loop for long behind a call, on cores that are the next contestant's then.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    return session, binding


def run_binding(session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding) -> np.ndarray:
    """The result."""
    session.run_with_iobinding(binding)
    return binding.get_outputs()[0].numpy()


def main() -> None:
    versions = {"openvino": openvino.__version__.split("-")[0], "onnxruntime": onnxruntime.__version__}
    Coprocess(Case, lambda: None).serve(answers, versions, threads())


if __name__ == "__main__":
    main()
