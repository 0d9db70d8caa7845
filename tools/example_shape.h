// The ten outlines of the example. Their names are the names of its classes, in label order.
#ifndef TOOLS_EXAMPLE_SHAPE_H
#define TOOLS_EXAMPLE_SHAPE_H

enum example_shape {
    EXAMPLE_ARROW,
    EXAMPLE_CRESCENT,
    EXAMPLE_CROSS,
    EXAMPLE_DISC,
    EXAMPLE_GEAR,
    EXAMPLE_HEART,
    EXAMPLE_LEAF,
    EXAMPLE_RING,
    EXAMPLE_STAR,
    EXAMPLE_TRIANGLE,
    EXAMPLE_SHAPE_COUNT,
};

extern const char *const example_shape_names[EXAMPLE_SHAPE_COUNT];

// Distance from (x, y) to the outline, negative inside; the shape fills the unit disc. `build` in
// [0, 1] makes slim and stout ones. Exact arithmetic, as in example_pattern.h.
float example_shape_distance(enum example_shape shape, float x, float y, float build);

#endif
