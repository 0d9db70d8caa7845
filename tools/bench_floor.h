// The floor of a loader: how fast libjpeg-turbo by itself decodes a dataset's images, whole, into
// RGB, with the settings that give the reference's pixels. A loader that decodes each image once
// with libjpeg-turbo, does nothing else and waits for nothing runs at this speed.
#ifndef TOOLS_BENCH_FLOOR_H
#define TOOLS_BENCH_FLOOR_H

#include "formats/dataset.h"

// Decodes `images` JPEGs spread evenly over the dataset (again from its start when it has fewer) in
// `threads` threads, and returns the images per second of all threads together. Only decoding is
// timed, not reading. Images that are no JPEG file or do not decode are left out; 0 when none
// remain.
double bench_floor(const struct dataset *dataset, uint64_t images, uint32_t threads);

#endif
