// The device `cuda` as the program sees it: a plugin, libbyol_cuda.so, opened when the device is,
// so that the program starts on machines without CUDA. Looked for, in this order:
//   the file that BYOL_CUDA_PLUGIN names (empty: none);
//   beside the program; in ../lib/byol from there.
// Whatever is missing is STATUS_NO_DEVICE with a reason that names it; a plugin that was built from
// another device.h is STATUS_VERSION. A plugin that was opened once stays.
#ifndef TRAINER_DEVICE_CUDA_PLUGIN_H
#define TRAINER_DEVICE_CUDA_PLUGIN_H

#include "trainer/device/device.h"

#define CUDA_PLUGIN_FILE "libbyol_cuda.so"

// What program and plugin must agree about. `version` counts changes that sizes do not show.
struct cuda_plugin_layout {
    uint32_t version, device_ops, device, peers, op_desc, op_buffers, param_span;
};
#define CUDA_PLUGIN_LAYOUT                                                                         \
    {                                                                                              \
        1, sizeof(struct device_ops), sizeof(struct device), sizeof(struct device_peers),          \
            sizeof(struct op_desc), sizeof(struct op_buffers), sizeof(struct param_span)           \
    }

// What the plugin exports: the functions of the device and, so that it can be refused before they
// are called, its layout.
#define CUDA_PLUGIN_DEVICE "byol_cuda_device"
#define CUDA_PLUGIN_CHECK  "byol_cuda_layout"
typedef const struct device_ops *cuda_plugin_device(void);
typedef const struct cuda_plugin_layout *cuda_plugin_check(void);

// Name, summary and open; an open device has the plugin's functions.
extern const struct device_ops cuda_device_ops;

#endif
