#include "tests/support/photographs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

const char *photographs_path(void)
{
    const char *path = getenv("BYOL_IMAGENET_SAMPLE");
    path = path ? path : "../shared/data/imagenet-sample.tar";
    if (access(path, R_OK) != 0) {
        printf("skipped: no %s (BYOL_IMAGENET_SAMPLE names another tar of photographs)\n", path);
        skip();
    }
    return path;
}
