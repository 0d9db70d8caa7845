// Views of real images, drawn and rendered as the loader does it.
#ifndef TESTS_SUPPORT_REAL_VIEWS_H
#define TESTS_SUPPORT_REAL_VIEWS_H

#include <stdint.h>

// CIFAR-10 where ../shared/data has it, else the few images of tests/data/images, again and again.
const char *real_views_source(void);

// Two views of each of `count` images by the recipe "small" at `size` pixels, as the method takes
// them: [count][size][size][3]. Always the same. The caller frees both.
void real_views_make(float *views[2], uint32_t count, uint32_t size);

#endif
