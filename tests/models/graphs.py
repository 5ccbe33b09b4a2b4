"""Networks as ONNX sessions, run by onnxruntime, an independent implementation of their operations."""

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper


class Graph:
    """A chain of operations that starts at 'image', [B, C, H, W]."""

    def __init__(self):
        self.weights, self.nodes, self.last = {}, [], 'image'

    def add(self, kind, *arrays, **attributes):
        names = [f'{kind}{len(self.nodes)}_{n}' for n in range(len(arrays))]
        self.weights.update(zip(names, map(np.asarray, arrays)))
        self.nodes.append(helper.make_node(kind, [self.last, *names], [f'out{len(self.nodes)}'], **attributes))
        self.last = self.nodes[-1].output[0]

    def pool(self, padding):
        self.add('MaxPool', kernel_shape=[3, 3], strides=[2, 2], pads=[padding] * 4, ceil_mode=1)

    def trunk(self, params, geometry):
        """Adds AlexNet up to conv5, on images that have lost their means."""
        for n in range(1, 6):
            groups = [group for _, group in sorted(params[f'conv{n}'].items())]
            kernel = np.concatenate([np.transpose(group['kernel'], (3, 2, 0, 1)) for group in groups])
            bias = np.concatenate([group['bias'] for group in groups])
            padding, stride = (geometry.conv1, 4) if n == 1 else (kernel.shape[-1] // 2, 1)
            self.add('Conv', kernel, bias, group=len(groups), strides=[stride] * 2, pads=[padding] * 4)
            self.add('Relu')
            if n <= 2:
                self.pool(geometry.pool1 if n == 1 else geometry.pool2)
                self.add('LRN', size=5, alpha=1e-4, beta=0.75, bias=1.0)

    def __call__(self, image):
        """Runs the graph."""
        tensors = [[helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)] for name in ('image', self.last)]
        weights = [numpy_helper.from_array(x, name) for name, x in self.weights.items()]
        graph = helper.make_graph(self.nodes, 'graph', *tensors, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
        return session.run(None, {'image': np.asarray(image)})[0]
