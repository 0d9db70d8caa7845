// The second half of views on the reference device: plain C of augment, an image at a time.
#include "augment/view.h"
#include "trainer/device/ref.h"

size_t ref_render_views_scratch(const struct device *device, uint32_t images, uint32_t size)
{
    (void)device, (void)images;
    return view_finish_floats(size) * sizeof(float);
}

enum status ref_render_views(struct device *device, uint32_t images, uint32_t size,
                             const uint8_t *bytes, const struct view_record *records, float *out,
                             void *scratch)
{
    (void)device;
    size_t values = (size_t)size * size * 3;
    for (size_t i = 0; i < images; i++) {
        view_finish(&records[i], size, bytes + i * values, out + i * values, scratch);
    }
    return STATUS_OK;
}
