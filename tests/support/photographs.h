// Real photographs, where there are some.
#ifndef TESTS_SUPPORT_PHOTOGRAPHS_H
#define TESTS_SUPPORT_PHOTOGRAPHS_H

// The tar or folder of them that BYOL_IMAGENET_SAMPLE names (default:
// ../shared/data/imagenet-sample.tar); skips the running test when it is not there.
const char *photographs_path(void);

#endif
