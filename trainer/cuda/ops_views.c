// The second half of views (views.h).
#include "trainer/cuda/cuda.h"

#include "trainer/cuda/views.h"

size_t cuda_device_render_views_scratch(const struct device *device, uint32_t images, uint32_t size)
{
    (void)device;
    return cuda_render_views_scratch_bytes(images, size);
}

enum status cuda_device_render_views(struct device *base, uint32_t images, uint32_t size,
                                     const uint8_t *bytes, const struct view_record *records,
                                     float *out, void *scratch)
{
    struct cuda_device *device = (struct cuda_device *)base;
    enum status status = cuda_enter(device);
    return status == STATUS_OK ? cuda_check(device,
                                            cuda_render_views(images, size, bytes, records, out,
                                                              scratch, device->stream),
                                            "finishing views")
                               : status;
}
