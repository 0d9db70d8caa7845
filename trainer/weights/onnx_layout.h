// What the writer and the reader of ONNX models share: the numbers of the fields of onnx.proto
// (github.com/onnx/onnx) that our models have. Private to trainer/weights.
#ifndef TRAINER_WEIGHTS_ONNX_LAYOUT_H
#define TRAINER_WEIGHTS_ONNX_LAYOUT_H

#define ONNX_IR_VERSION 8
#define ONNX_OPSET      17

enum onnx_model_field {
    ONNX_MODEL_IR_VERSION = 1,
    ONNX_MODEL_PRODUCER = 2,
    ONNX_MODEL_GRAPH = 7,
    ONNX_MODEL_OPSET = 8,
    ONNX_MODEL_METADATA = 14,
};
enum onnx_opset_field { ONNX_OPSET_VERSION = 2 };
enum onnx_metadata_field { ONNX_METADATA_KEY = 1, ONNX_METADATA_VALUE = 2 };
enum onnx_graph_field {
    ONNX_GRAPH_NODE = 1,
    ONNX_GRAPH_NAME = 2,
    ONNX_GRAPH_TENSOR = 5,
    ONNX_GRAPH_INPUT = 11,
    ONNX_GRAPH_OUTPUT = 12,
};
enum onnx_node_field {
    ONNX_NODE_INPUT = 1,
    ONNX_NODE_OUTPUT = 2,
    ONNX_NODE_NAME = 3,
    ONNX_NODE_TYPE = 4,
    ONNX_NODE_ATTRIBUTE = 5,
};
enum onnx_attribute_field {
    ONNX_ATTRIBUTE_NAME = 1,
    ONNX_ATTRIBUTE_FLOAT = 2,
    ONNX_ATTRIBUTE_INT = 3,
    ONNX_ATTRIBUTE_INTS = 8,
    ONNX_ATTRIBUTE_TYPE = 20,
};
enum onnx_attribute_type { ONNX_TYPE_FLOAT = 1, ONNX_TYPE_INT = 2, ONNX_TYPE_INTS = 7 };
enum onnx_tensor_field {
    ONNX_TENSOR_DIMS = 1,
    ONNX_TENSOR_TYPE = 2,
    ONNX_TENSOR_NAME = 8,
    ONNX_TENSOR_RAW = 9,
};
enum onnx_tensor_type { ONNX_FLOAT32 = 1, ONNX_INT64 = 7 };
enum onnx_value_field { ONNX_VALUE_NAME = 1, ONNX_VALUE_TYPE = 2 };
enum onnx_type_field { ONNX_TYPE_TENSOR = 1 };
enum onnx_tensor_type_field { ONNX_TENSOR_TYPE_ELEMENT = 1, ONNX_TENSOR_TYPE_SHAPE = 2 };
enum onnx_shape_field { ONNX_SHAPE_DIM = 1 };
enum onnx_dim_field { ONNX_DIM_VALUE = 1, ONNX_DIM_PARAM = 2 };

#define ONNX_IMAGES "images" // the input

// Our outputs under the names they have there.
static const struct {
    const char *ours, *theirs;
} onnx_outputs[] = {{"embedding", "features"},
                    {"projection", "projection"},
                    {"prediction", "prediction"},
                    {"logits", "logits"}};
#define ONNX_OUTPUTS (sizeof onnx_outputs / sizeof onnx_outputs[0])

#endif
