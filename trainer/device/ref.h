// The reference device: obvious loops over plain [n][h][w][c] float32, sums in double, one thread.
// It is the oracle of the other devices and far too slow to train with. Private to trainer/device.
#ifndef TRAINER_DEVICE_REF_H
#define TRAINER_DEVICE_REF_H

#include "trainer/device/op.h"

void ref_input_forward(const struct op_desc *desc, float *y, const float *x);

void ref_conv_forward(const struct op_desc *desc, float *y, const float *x, const float *weights,
                      double *scratch);
void ref_conv_backward_data(const struct op_desc *desc, float *dx, const float *dy,
                            const float *weights, double *scratch);
void ref_conv_backward_weights(const struct op_desc *desc, float *dweights, const float *x,
                               const float *dy, double *scratch);

// Bytes of the statistics that ref_norm_forward leaves in `stats`: mean, 1 / deviation.
size_t ref_norm_stats_bytes(const struct op_desc *desc);
enum status ref_norm_forward(const struct op_desc *desc, const struct op_buffers *buffers,
                             void *stats, enum op_mode mode, const struct device_peers *peers);
enum status ref_norm_backward(const struct op_desc *desc, const struct op_buffers *buffers,
                              const void *stats, const struct device_peers *peers);

// Bytes of the statistics that ref_group_norm_forward leaves in `stats`: one pair an image and run
// of channels.
size_t ref_group_norm_stats_bytes(const struct op_desc *desc);
void ref_group_norm_forward(const struct op_desc *desc, const struct op_buffers *buffers,
                            void *stats);
void ref_group_norm_backward(const struct op_desc *desc, const struct op_buffers *buffers,
                             const void *stats);

void ref_affine_forward(const struct op_desc *desc, const struct op_buffers *buffers);
void ref_affine_backward(const struct op_desc *desc, const struct op_buffers *buffers);

// Weights to standardised weights, with the bias copied behind; and their gradient to that of the
// weights, in place.
void ref_standardise(const struct op_desc *desc, float *to, const float *params);
void ref_standard_backward(const struct op_desc *desc, float *grads, const float *params);

// `saved` [n][out h][out w][c]: position in the window of each maximum.
void ref_max_pool_forward(const struct op_desc *desc, float *y, const float *x, uint32_t *saved);
void ref_max_pool_backward(const struct op_desc *desc, float *dx, const float *dy,
                           const uint32_t *saved);
void ref_mean_pool_forward(const struct op_desc *desc, float *y, const float *x);
void ref_mean_pool_backward(const struct op_desc *desc, float *dx, const float *dy);

void ref_relu_forward(float *y, const float *x, size_t count);
void ref_relu_backward(float *dx, const float *dy, const float *y, size_t count);
void ref_add_forward(const struct op_desc *desc, const struct op_buffers *buffers);
void ref_add_backward(const struct op_desc *desc, const struct op_buffers *buffers);

void ref_linear_forward(const struct op_desc *desc, const struct op_buffers *buffers);
void ref_linear_backward(const struct op_desc *desc, const struct op_buffers *buffers);

// The functions of struct device_ops that are not ops.
size_t ref_render_views_scratch(const struct device *device, uint32_t images, uint32_t size);
enum status ref_render_views(struct device *device, uint32_t images, uint32_t size,
                             const uint8_t *bytes, const struct view_record *records, float *out,
                             void *scratch);
enum status ref_regression_loss(struct device *device, const float *x, const float *y, uint32_t n,
                                uint32_t d, float scale, float *losses, float *dx, float *dy);
enum status ref_softmax_loss(struct device *device, const float *logits, const int32_t *labels,
                             uint32_t n, uint32_t classes, const float *scale, float *losses,
                             float *dlogits, uint8_t *top1, uint8_t *top5);
enum status ref_lars_step(struct device *device, const struct param_span *spans, size_t count,
                          const struct lars_settings *settings, float *params, const float *grads,
                          float *momentum, const struct moving_target *target);
enum status ref_sgd_step(struct device *device, const struct param_span *spans, size_t count,
                         const struct sgd_settings *settings, float *params, const float *grads,
                         float *momentum, const struct moving_target *target);
enum status ref_adamw_step(struct device *device, const struct param_span *spans, size_t count,
                           const struct adamw_settings *settings, float *params, const float *grads,
                           float *momentum, float *second_moment, float *steps,
                           const struct moving_target *target);
enum status ref_moving_average(struct device *device, float *target, const float *online,
                               uint64_t count, float rate);
enum status ref_block_add(struct device *device, float *sum, const float *block, uint64_t count);
enum status ref_matrix_product(struct device *device, bool transpose_a, bool transpose_b,
                               uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
                               float *c, bool accumulate);

#endif
