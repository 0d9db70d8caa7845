// A network of a few kilobytes that has every kind of layer, so that files of its weights are short
// enough to be mutated.
#ifndef TESTS_SUPPORT_FUZZ_NETWORK_H
#define TESTS_SUPPORT_FUZZ_NETWORK_H

#include "trainer/weights/weights.h"

// Aborts where it cannot be made. Parameters and statistics are small numbers, none of them 0.
void fuzz_network_open(struct weights *weights);

#endif
