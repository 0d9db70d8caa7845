// Weights of convolutions between the masters (float32, HWIO) and what the library multiplies
// (out, h, w, in; bfloat16 or float32; channels filled up with zeros), and their standardisation.
// Private to the cuda device. All calls only enqueue on `stream`.
#ifndef TRAINER_CUDA_WEIGHTS_H
#define TRAINER_CUDA_WEIGHTS_H

#include "trainer/cuda/image.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_filter {
    uint32_t kernel, in, out;       // of the masters
    uint32_t in_stride, out_stride; // channels as stored
    bool half;
    // Of a folded input: in = 3, in_stride = CUDA_FOLDED; the stored filter has `folded` x `folded`
    // places of blocks, and tap (y, x) of the master lies at block ((y + shift) / 2), place
    // ((y + shift) % 2) of it. 0: not folded.
    uint32_t folded, shift_y, shift_x;
};

uint64_t cuda_filter_values(const struct cuda_filter *filter); // as stored

cudaError_t cuda_filter_pack(const struct cuda_filter *filter, const float *master, void *stored,
                             cudaStream_t stream);
// Gradients the other way; every value of `gradient` is overwritten.
cudaError_t cuda_filter_unpack(const struct cuda_filter *filter, const void *stored,
                               float *gradient, cudaStream_t stream);

// WEIGHT_STANDARD_EPSILON's standardisation of a matrix [fan_in][out] of masters; `saved` [2][out]:
// mean, 1 / deviation. Backward: gradient of the masters from that of the standardised weights, in
// place.
cudaError_t cuda_standardise(uint32_t fan_in, uint32_t out, const float *master, float *weights,
                             float *saved, cudaStream_t stream);
cudaError_t cuda_standardise_backward(uint32_t fan_in, uint32_t out, const float *master,
                                      const float *saved, float *gradient, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
