// What this plugin was built from, for the program that opens it.
#include "trainer/device/cuda_plugin.h"

__attribute__((visibility("default"))) const struct cuda_plugin_layout *byol_cuda_layout(void);

const struct cuda_plugin_layout *byol_cuda_layout(void)
{
    static const struct cuda_plugin_layout layout = CUDA_PLUGIN_LAYOUT;
    return &layout;
}
