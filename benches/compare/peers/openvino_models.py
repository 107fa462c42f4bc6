"""What the peers on OpenVINO share: how a model is compiled."""

import openvino
from openvino import properties
from openvino.properties import hint

PRECISIONS = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16, "int8": openvino.Type.bf16}
# How many activations in a row share a scale.
GROUP = 128


def compile_model(path, args):
    """Compiles a model for one request at a time; in int8, activations are rounded too, and the rest is bf16."""
    wanted = {
        hint.inference_precision: PRECISIONS[args.dtype],
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        # As many threads as are asked for, even where two share a core.
        hint.enable_hyper_threading: True,
        properties.inference_num_threads: args.threads,
        properties.num_streams: 1,
    }
    if args.dtype == "int8":
        wanted[hint.dynamic_quantization_group_size] = GROUP
    return openvino.Core().compile_model(path, "CPU", wanted)
