// ILSVRC2012's development kit in small: a MATLAB file of synsets, written by hand.
#ifndef TESTS_SUPPORT_DEVKIT_CASE_H
#define TESTS_SUPPORT_DEVKIT_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// meta.mat, in malloc'ed memory, with a synset of number 1, 2 … for each WNID; `packed`: by zlib,
// as MATLAB's own are.
uint8_t *devkit_case_meta(const char *const *wnids, size_t count, bool packed, size_t *len);
// A tar with it and the ground truth ("2\n1\n…").
void devkit_case_write(const char *path, const char *const *wnids, size_t count, const char *truth);

#endif
